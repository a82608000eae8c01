from shortback.data.progress import shown


def test_a_bar_is_drawn_of_many_and_changes_nothing(capsys):
    assert list(shown(iter("abc"), "reading", 3, from_number=4)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    assert list(shown(iter("abc"), "reading", 3, from_number=3)) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""

import pytest

from shortback.files import replacing, write_text


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "one")
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("half of tw\ud800")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_the_one_before_is_kept(tmp_path):
    path, before = tmp_path / "a", tmp_path / "b"
    for text in ("one", "two", "three"):
        with replacing(path, keep_as=before) as temporary:
            temporary.write_text(text)
    assert (path.read_text(), before.read_text()) == ("three", "two")

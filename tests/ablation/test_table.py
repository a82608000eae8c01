from dataclasses import replace
from io import StringIO

from rich.console import Console

from shortback.ablation.groups import group_runs
from shortback.ablation.table import HEADINGS, note_on, rows_of, terminal_tables
from tests.ablation.test_groups import run, three_seeds, two_methods


def test_rows_by_hand():
    runs = [*two_methods(), run("evolutionary", 0, None, error="no")]
    vanilla, shortcut, evolutionary = (
        dict(zip([f"{i} {heading}" for i, heading in enumerate(HEADINGS)], row, strict=True))
        for row in rows_of(group_runs(runs))
    )
    assert vanilla["5 test"] == "55.00% ± 7.07"
    assert vanilla["7 to vanilla"] == ""
    assert shortcut["7 to vanilla"] == "+3.00"
    # s = 1.414 points, t for 1 degree of freedom 12.706: 3 +- 12.706
    assert shortcut["8 95 % interval"] == "-9.71 to +15.71"
    assert shortcut["3 validation"] == "40.00% ± 0.00"
    assert shortcut["4 to vanilla"] == "+0.00"
    assert shortcut["9 p"] == "0.2"
    assert evolutionary["2 runs"] == "1 failed"
    assert evolutionary["5 test"] == ""


def printed(runs, width):
    out = StringIO()
    Console(file=out, width=width, markup=False).print(terminal_tables(group_runs(runs)))
    return out.getvalue()


def test_several_comparisons_are_counted():
    shifts = {"vanilla": 0, "shortcut": 1, "evolutionary": 2}
    runs = [one for method, shift in shifts.items() for one in three_seeds(method, validation=0, test=shift)]
    assert "not corrected for the number of comparisons, 2" in " ".join(printed(runs, 200).split())


def test_a_narrow_terminal_cuts_nothing_off():
    settings = (
        {"optimizer.lr": "0.03", "branches.at": "stages"},
        {"branches.at": "[layer1, layer2]", "model.num_steps": "4"},
    )
    runs = [
        run(one.method, one.seed, one.summary["test_accuracy"], settings=s) for s in settings for one in two_methods()
    ]
    table = printed([*runs, run("evolutionary", 0, None, settings=settings[0], error="no")], 80)
    assert max(map(len, table.splitlines())) <= 80
    for line in table.splitlines():
        assert line.count("95 % interval") <= 1
    assert table.count("difference from vanilla, in points") == 2
    for whole in ("58.00% ± 8.49", "-9.71 to +15.71", "2 finished", "1 failed", "branches.at=[layer1, layer2]"):
        assert whole in table
    assert "…" not in table


def test_an_accuracy_ends_at_0_and_100():
    """50 % and 60 %: 55 +- 12.706 * 5, cut at 0 and at 100, where the difference is not."""
    vanilla, shortcut = rows_of(group_runs(two_methods()))
    assert vanilla[HEADINGS.index("95 % interval")] == "0.00 to 100.00"
    assert shortcut[8] == "-9.71 to +15.71"


def test_the_terminal_says_first_that_nothing_was_learnt():
    runs = [replace(one, summary={**one.summary, "test_images": 100, "num_classes": 2}) for one in two_methods()]
    first, *_ = printed(runs, 80).splitlines()
    assert first == "Every run is at chance, 50.0% with 2 classes: the comparison says nothing."


def test_the_note_says_why_an_interval_is_missing():
    runs = [run(method, seed, value) for method, value in (("vanilla", 0.5), ("shortcut", 0.55)) for seed in (0, 1)]
    groups = group_runs(runs)
    assert "Where all values or differences are the same, no interval can be computed" in note_on(groups)
    assert rows_of(groups)[0][HEADINGS.index("95 % interval")] == ""
    assert "two seeds" not in note_on(groups)


def test_the_note_says_where_the_test_is_the_validation():
    runs = [replace(one, summary={**one.summary, "tested_on": "validation"}) for one in two_methods()]
    assert "what is called test is the validation split again" in note_on(group_runs(runs))
    assert "No test split" not in note_on(group_runs(two_methods()))

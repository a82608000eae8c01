import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from shortback.ablation_page import HEADINGS, rows_of, terminal_tables, write_ablation_page
from shortback.ablation_results import group_runs
from tests.test_ablation_results import run, two_methods


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


def three_seeds(method, *, validation, test):
    """Shifts of both, in points; seeds differ a little, or there would be no interval."""
    return [
        run(method, seed, 0.5 + test / 100 + 1e-3 * seed * test, curve=(0.4 + validation / 100,)) for seed in range(3)
    ]


@pytest.mark.parametrize(
    ("others", "lead"),
    [
        ([("shortcut", 3, 10)], r"Best on the validation split: shortcut\. .* \+11\.00 points over .*, 95 % [^:]*\."),
        (
            [("shortcut", 3, 10), ("evolutionary", 4, -5)],
            r"Best on the validation split: evolutionary\. .*: it may be chance",
        ),
        ([("shortcut", -3, 10)], "Nothing is better than vanilla training on the validation split"),
    ],
)
def test_the_lead_is_chosen_by_validation_and_claims_no_more_than_the_interval(tmp_path, others, lead):
    runs = three_seeds("vanilla", validation=0, test=0)
    for method, validation, test in others:
        runs += three_seeds(method, validation=validation, test=test)
    write_ablation_page(tmp_path / "page.html", group_runs(runs), title="t")
    assert re.search(rf'class="lead">{lead}', (tmp_path / "page.html").read_text())
    write_ablation_page(tmp_path / "one.html", group_runs([one for one in runs if one.seed == 0]), title="t")
    assert 'class="lead">No comparison yet' in (tmp_path / "one.html").read_text()


def test_the_page_says_what_every_run_was_made_with(tmp_path):
    made = {"execution": "cpu, bf16", "versions": {"torch": "2.15.0"}, "git_commit": "0123456789abcdef"}
    trained = {"best_val_accuracy": 0.625, "train_seconds": 61.4, "images_per_second": 200.2, "peak_memory_mb": 900.0}
    runs = [replace(one, summary={**one.summary, **made, **trained}) for one in two_methods()]
    write_ablation_page(tmp_path / "page.html", group_runs(runs), title="t")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<p>cpu, bf16; torch 2.15.0, commit 0123456789ab</p>") == 1
    assert page.count("<td>finished</td><td>") == 4
    assert "<td>finished</td><td>64.00%</td><td>62.50%</td><td>61</td><td>200</td><td>900</td>" in page


def printed(runs, width):
    out = StringIO()
    Console(file=out, width=width, markup=False).print(terminal_tables(group_runs(runs)))
    return out.getvalue()


def test_the_setting_is_a_column_where_there_is_one(tmp_path):
    for settings, columns in (((), 0), ({"optimizer.lr": "0.1"}, 2)):
        runs = [replace(one, settings=tuple(dict(settings).items())) for one in two_methods()]
        write_ablation_page(tmp_path / "page.html", group_runs(runs), title="t")
        assert (tmp_path / "page.html").read_text().count('<th scope="col">setting</th>') == columns


def test_several_comparisons_are_counted():
    shifts = {"vanilla": 0, "shortcut": 1, "evolutionary": 2}
    runs = [one for method, shift in shifts.items() for one in three_seeds(method, validation=0, test=shift)]
    assert "not corrected for the number of comparisons, 2" in printed(runs, 200)


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
    for whole in ("58.00% ± 8.49", "-9.71 to +15.71", "2 finished", "1 failed", "branches.at=[layer1, layer2]"):
        assert whole in table
    assert "…" not in table

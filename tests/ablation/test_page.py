import re
from dataclasses import replace

import pytest

from shortback.ablation.groups import group_runs
from shortback.ablation.page import _curves, _lead, write_ablation_page
from tests.ablation.test_groups import run, three_seeds, two_methods


@pytest.mark.parametrize(
    ("others", "lead"),
    [
        ([("shortcut", 3, 10)], r"Best on the validation split: shortcut\. .* \+11\.00 points over .*, 95 % [^:]*\."),
        (
            [("shortcut", 3, 10), ("evolutionary", 4, -5)],
            r"Best on the validation split: evolutionary\. .*: it may be chance",
        ),
        (
            [("shortcut", 3, 10), ("evolutionary", 3, 5)],
            "2 are equally good on the validation split, and better than vanilla training: shortcut, evolutionary",
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


def test_the_setting_is_a_column_where_there_is_one(tmp_path):
    for settings, columns in (((), 0), ({"optimizer.lr": "0.1"}, 2)):
        runs = [replace(one, settings=tuple(dict(settings).items())) for one in two_methods()]
        write_ablation_page(tmp_path / "page.html", group_runs(runs), title="t")
        assert (tmp_path / "page.html").read_text().count('<th scope="col">setting</th>') == columns


def test_the_lead_forgets_no_method_whose_seeds_agree_exactly():
    runs = [
        run(method, seed, value, curve=(value,))
        for method, value in (("vanilla", 0.5), ("shortcut", 0.55))
        for seed in (0, 1)
    ]
    expected = "Best on the validation split: shortcut. On the test split +5.00 points over vanilla with every seed."
    assert _lead(group_runs(runs)) == expected
    worse = [run("evolutionary", 0, 0.49, curve=(0.49,)), run("evolutionary", 1, 0.48, curve=(0.48,))]
    assert _lead(group_runs([*runs, *worse])) == expected


def test_the_lead_says_first_that_nothing_was_learnt():
    runs = [replace(one, summary={**one.summary, "test_images": 100, "num_classes": 2}) for one in two_methods()]
    assert _lead(group_runs(runs)) == "Every run is at chance, 50.0% with 2 classes: the comparison says nothing."


def without_validation(runs):
    return [replace(one, summary={**one.summary, "best_val_accuracy": None}) for one in runs]


def test_the_lead_claims_no_validation_where_there_was_none():
    runs = [*three_seeds("vanilla", validation=0, test=0), *three_seeds("shortcut", validation=0, test=10)]
    lead = _lead(group_runs(without_validation(runs)))
    assert lead.startswith(
        "Best on the test split, by which it was chosen too: shortcut, +11.00 points over vanilla, 95 %"
    )
    worse = [*three_seeds("vanilla", validation=0, test=0), *three_seeds("shortcut", validation=0, test=-10)]
    assert _lead(group_runs(without_validation(worse))) == "Nothing is better than vanilla training on the test split."
    again = [replace(one, summary={**one.summary, "tested_on": "validation"}) for one in runs]
    again = [replace(one, summary={**one.summary, "best_val_accuracy": one.summary["test_accuracy"]}) for one in again]
    assert _lead(group_runs(again)).startswith("Best on the validation split, the only one there is: shortcut, +11.00")


def test_curves_end_where_the_first_of_their_runs_does():
    """One went on to 0.9 alone, which is no mean; one that never began holds nothing up."""
    runs = [run("vanilla", 0, None, curve=(0.5, 0.6, 0.9)), run("vanilla", 1, None, curve=(0.1, 0.4))]
    runs.append(run("vanilla", 2, None, curve=()))
    (line,) = _curves(group_runs(runs), "val_accuracy", "accuracy").axes[0].lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([10, 20], pytest.approx([0.3, 0.5]))

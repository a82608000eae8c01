import re
from dataclasses import replace

import pytest

from shortback.ablation.groups import group_runs
from shortback.ablation.page import write_ablation_page
from tests.ablation.test_groups import three_seeds, two_methods


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

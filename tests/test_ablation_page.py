import re
from dataclasses import replace
from io import StringIO

from rich.console import Console

from shortback.ablation_page import HEADINGS, rows_of, terminal_tables, write_ablation_page
from shortback.ablation_results import group_runs
from tests.test_ablation_results import run, two_methods


def test_rows_by_hand():
    runs = [*two_methods(), run("evolutionary", 0, None, error="no")]
    vanilla, shortcut, evolutionary = (
        dict(zip(HEADINGS[:3] + HEADINGS[3:6] + ("interval of it", "p"), row, strict=True))
        for row in rows_of(group_runs(runs))
    )
    assert vanilla["test accuracy"] == "55.00% ± 7.07"
    assert vanilla["to vanilla, paired"] == ""
    assert shortcut["to vanilla, paired"] == "+3.00"
    # s = 1.414 points, t for 1 degree of freedom 12.706: 3 +- 12.706
    assert shortcut["interval of it"] == "-9.71 to +15.71"
    assert shortcut["p"] == "0.205"
    assert evolutionary["runs"] == "1 failed"
    assert evolutionary["test accuracy"] == ""


def test_the_lead_claims_no_more_than_the_interval(tmp_path):
    close = [
        run(method, seed, 0.5 + shift) for seed in range(3) for method, shift in (("vanilla", 0.0), ("shortcut", 0.0))
    ]
    clear = [
        run(method, seed, 0.5 + shift + 0.01 * seed * shift)
        for seed in range(3)
        for method, shift in (("vanilla", 0.0), ("shortcut", 0.1))
    ]
    leads = {
        "No comparison yet": [one for one in clear if one.seed == 0],
        "No method beats vanilla": close,
        r"shortcut: \+10\.10 over vanilla": clear,
    }
    for lead, runs in leads.items():
        write_ablation_page(tmp_path / "page.html", group_runs(runs), title="t")
        assert re.search(rf'class="lead">{lead}', (tmp_path / "page.html").read_text())


def test_the_page_says_what_every_run_was_made_with(tmp_path):
    made = {"execution": "cpu, bf16", "versions": {"torch": "2.15.0"}, "git_commit": "0123456789abcdef"}
    trained = {"best_val_accuracy": 0.625, "train_seconds": 61.4, "images_per_second": 200.2, "peak_memory_mb": 900.0}
    runs = [replace(one, summary={**one.summary, **made, **trained}) for one in two_methods()]
    write_ablation_page(tmp_path / "page.html", group_runs(runs), title="t")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<p>cpu, bf16; torch 2.15.0, commit 0123456789ab</p>") == 1
    assert page.count("<td>finished</td><td>") == 4
    assert "<td>finished</td><td>64.00%</td><td>62.50%</td><td>61</td><td>200</td><td>900</td>" in page


def test_several_comparisons_are_counted():
    runs = [
        run(method, seed, 0.5 + 0.1 * seed) for method in ("vanilla", "shortcut", "evolutionary") for seed in (0, 1)
    ]
    out = StringIO()
    Console(file=out, width=200).print(terminal_tables(group_runs(runs)))
    assert "not corrected for the number of comparisons, 2" in out.getvalue()


def test_a_narrow_terminal_cuts_nothing_off():
    settings = ("optimizer.lr=0.03, branches.at=stages", "branches.at=[layer1,layer2], model.num_steps=4")
    runs = [
        run(one.method, one.seed, one.summary["test_accuracy"], setting=s) for s in settings for one in two_methods()
    ]
    out = StringIO()
    Console(file=out, width=80, markup=False).print(terminal_tables(group_runs(runs)))
    table = out.getvalue()
    assert max(map(len, table.splitlines())) <= 80
    for whole in ("58.00% ± 8.49", "-9.71 to +15.71", "2 finished", "0.205", *settings):
        assert whole in table
    assert "…" not in table

"""The tables in docs are what the files in benchmarks/results say."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "docs_tables.py"
spec = importlib.util.spec_from_file_location("docs_tables", SCRIPT)
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.stem)
def test_the_tables_are_made_from_the_results(page):
    text = page.read_text()
    assert tables.render(text) == text


def test_every_result_has_its_table():
    lines = {line for page in tables.PAGES for line in page.read_text().splitlines()}
    ablations = [file.stem for file in tables.RESULTS.glob("ablation_*.json")]
    assert ablations
    assert {f"<!-- {name} -->" for name in [*tables.TABLES, *ablations]} <= lines


@pytest.mark.parametrize("name", sorted({name.partition("-")[0] for name in tables.TABLES}))
def test_results_say_what_they_were_made_with(name):
    report = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert report["settings"]["quick"] is False
    assert report["environment"]["git_changed"] is False
    assert report["environment"]["versions"]["torch"]


def test_memory_is_named_for_what_was_measured():
    results = tables.read("branches")["results"]
    for case in results["cases"]:
        case["memory"] |= {"over": {"shortcut / vanilla": 1.25}}
        case["memory"].pop("over_in_use", None)
    heading, _, first, *_ = tables.branches(results)
    assert ("peak memory" in heading, "| 1.25 |" in first) == (True, True)
    for case in results["cases"]:
        case["memory"]["over_in_use"] = {"shortcut / vanilla": 1.5}
    heading, _, first, *_ = tables.branches(results)
    assert ("| memory in use |" in heading, "| 1.50 |" in first) == (True, True)

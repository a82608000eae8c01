"""The tables of docs/performance.md are what the files in benchmarks/results say."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "performance_tables.py"
spec = importlib.util.spec_from_file_location("performance_tables", SCRIPT)
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


def test_the_tables_are_made_from_the_results():
    text = tables.PAGE.read_text()
    assert tables.render(text) == text
    assert {f"<!-- {name} -->" for name in tables.TABLES} <= set(text.splitlines())


@pytest.mark.parametrize("name", sorted({name.partition("-")[0] for name in tables.TABLES}))
def test_results_say_what_they_were_made_with(name):
    report = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    assert report["settings"]["quick"] is False
    assert report["environment"]["git_changed"] is False
    assert report["environment"]["versions"]["torch"]

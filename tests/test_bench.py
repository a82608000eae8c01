"""Benchmarks are found, listed and started by name."""

import json

import pytest
from typer.testing import CliRunner

from shortback import bench
from shortback.cli import app

pytestmark = pytest.mark.slow


def test_all_questions_are_listed():
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 0
    assert {"floor", "against_peers", "branches", "memory", "neuron", "growth"} <= set(bench.questions())
    for name, answer in bench.questions().items():
        assert name in result.output
        assert answer in result.output
        assert answer.endswith("?")


def test_one_is_run_with_its_own_options(tmp_path):
    result = CliRunner().invoke(app, ["bench", "neuron", "--quick", "--out", str(tmp_path / "neuron.json")])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "neuron.json").read_text())["results"]


def test_an_unknown_one_is_an_error_that_names_the_others():
    result = CliRunner().invoke(app, ["bench", "flor"])
    assert result.exit_code == 2
    with pytest.raises(ValueError, match="floor"):
        bench.run("flor", [])

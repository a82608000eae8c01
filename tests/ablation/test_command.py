import json

import pytest

from shortback.ablation.command import _about, _timing_key
from shortback.recipes.load import load_recipe
from tests.browser import CHROMIUM, opened
from tests.test_cli import SETTINGS, refused, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ablation(tmp_path_factory):
    """An ablation that ran, one cell of which failed."""
    out = tmp_path_factory.mktemp("ablation") / "new"
    words = ["ablate", "quickstart", *SETTINGS, "-s", "train.epochs=1", "--methods", "vanilla,shortcut", "--seeds", "2"]
    words += ["--vary", "branches.coefficient=0.5,1.0e+38", "--out", out]
    return out, run(*words, COLUMNS="200"), words


def test_a_failed_cell_is_in_the_table_and_in_the_exit_code(ablation):
    out, done, _ = ablation
    assert done.returncode == 1, done.stderr
    assert "leaked" not in done.stderr
    assert "first not finite" in done.stdout
    table = done.stdout[done.stdout.rindex("branches.coefficient=0.5") :].splitlines()
    row, difference = [line for line in table if "shortcut" in line][:2]
    results = json.loads((out / "results.json").read_text())
    group = next(g for g in results["groups"] if g["setting"] == "branches.coefficient=0.5")
    assert "2 finished" in row
    assert f"{group['accuracy']['mean']:.2%}" in row
    assert f"{100 * group['difference']['estimate']['mean']:+.2f}" in difference
    failed = next(g for g in results["groups"] if g["setting"] == "branches.coefficient=1.0e+38")
    assert [one["status"] for one in failed["runs"]] == ["failed", "failed"]


def test_the_page_has_the_numbers(ablation):
    out, _, _ = ablation
    text = (out / "report.html").read_text()
    results = json.loads((out / "results.json").read_text())
    for group in results["groups"]:
        if group["accuracy"]:
            assert f"{group['accuracy']['mean']:.2%}" in text
    assert text.count("<svg ") == 4
    assert "first not finite" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_the_page_without_an_error(ablation, tmp_path):
    out, _, _ = ablation
    report, text = opened(out / "report.html", tmp_path)
    assert report["svgs"] == 4
    for group in json.loads((out / "results.json").read_text())["groups"]:
        if group["accuracy"]:
            assert f"{group['accuracy']['mean']:.2%}" in text


def test_report_makes_it_again_and_joins(ablation, tmp_path):
    out, _, _ = ablation
    before = (out / "results.json").read_text()
    (out / "results.json").unlink()
    assert run("report", out).returncode == 0
    assert (out / "results.json").read_text() == before
    joined = run("report", out, out / "vanilla-seed0", "--out", tmp_path / "both")
    assert joined.returncode == 0, joined.stderr
    groups = json.loads((tmp_path / "both" / "results.json").read_text())["groups"]
    assert [len(group["runs"]) for group in groups] == [len(group["runs"]) for group in json.loads(before)["groups"]]
    assert "holds no run" in refused("report", tmp_path)
    assert "name the folders that it was made from" in refused("report", tmp_path / "both")


def test_the_plan_runs_nothing(ablation, tmp_path):
    _, _, words = ablation
    done = run(*[*words[:-4], "--out", tmp_path / "plan", "--plan", "--jobs", "2"], COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert "4 runs, less than a minute of steps left, 2 side by side" in done.stdout
    assert "so far" in done.stdout
    assert "vanilla-seed1" in done.stdout
    assert not (tmp_path / "plan").exists()


def test_wrong_input(tmp_path):
    common = ["ablate", "quickstart", *SETTINGS, "--out", tmp_path]
    assert "the nearest are shortcut" in refused(*common, "--methods", "shortcuts")
    assert "add --yes" in refused(*common, "--seeds", "200")
    assert "options of their own" in refused(*common, "--vary", "seed=1,2")


def test_a_plan_measures_once_what_takes_as_long():
    def words(*settings):
        return _timing_key(load_recipe("quickstart", settings=["compare=null", *settings]))

    usual = words("method=evolutionary")
    assert words("method=shortcut", "seed=3", "branches.start=0.5", "optimizer.lr=0.2") == usual
    assert words("method=vanilla") != usual
    assert words("method=vanilla", "branches.at=stages") == words("method=vanilla")
    assert words("method=evolutionary", "branches.at=stages") != usual
    assert words("method=evolutionary", "model.num_steps=3") != usual


def test_a_time_is_about():
    assert [_about(n) for n in (0.2, 59, 61, 120)] == [
        "less than a minute",
        "less than a minute",
        "about 1 minute",
        "about 2 minutes",
    ]

import json

import pytest

from shortback.recipes.load import load_recipe
from shortback.runs.diagnose import check_recipe_gradients, check_run_gradients
from shortback.runs.folder import RunFolder
from shortback.runs.train import train_recipe
from tests.runs.test_train import TINY
from tests.test_cli import SETTINGS, refused, run

pytestmark = pytest.mark.slow


def tiny(*settings):
    return load_recipe("quickstart", settings=[*TINY, "train.epochs=1", *settings])


def test_a_recipe_is_diagnosed_as_its_training_would_begin():
    checkup = check_recipe_gradients(tiny())
    assert checkup.title.endswith("before training")
    assert checkup.report.measurement.coefficient == 1.0
    assert set(checkup.report.measurement.losses) > {".main"}
    assert checkup.run is None


def test_what_trains_with_a_scale_is_measured_in_float32_as_training_does():
    """In half precision without the scale small gradients would be 0."""
    full, half = (check_recipe_gradients(tiny(f"train.precision={kind}")).report.layers for kind in ("fp32", "fp16"))
    assert [layer.gradient_norm for layer in half] == [layer.gradient_norm for layer in full]


def test_fewer_images_than_a_batch_are_diagnosed():
    assert check_recipe_gradients(tiny("train.batch_size=1000")).report.measurement.coefficient == 1.0


def test_a_run_is_diagnosed_as_it_ended(tmp_path):
    train_recipe(tiny("method=shortcut"), tmp_path / "run", say=lambda line: None)
    trained = check_run_gradients(tmp_path / "run")
    assert "after 9 steps" in trained.title
    begun = check_recipe_gradients(tiny("method=shortcut"))
    assert trained.report.layers[0].weight_norm != begun.report.layers[0].weight_norm
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    (seen,) = [row for row in rows if row["kind"] == "health"]
    assert seen["verdict"] == begun.report.judgement.verdict


def test_branches_are_placed_once_and_written_down(tmp_path):
    recipe = tiny("branches.at=auto")
    train_recipe(recipe, tmp_path / "run", say=lambda line: None)
    at = RunFolder(tmp_path / "run").read_recipe().branches.at
    assert isinstance(at, list)
    assert at
    assert check_recipe_gradients(recipe).recipe.branches.at == at
    train_recipe(recipe, tmp_path / "run", resume=True, say=lambda line: None)  # is the same recipe still


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["method=evolutionary"], "branches.start"),
        (["method=shortcut"], "branches.coefficient"),
        (["method=shortcut", "branches.schedule=adaptive"], "branches.coefficient"),
        (["method=evolutionary", "branches.schedule=adaptive"], None),
    ],
)
def test_another_coefficient_is_suggested_where_the_recipe_has_a_setting_for_it(settings, key):
    recipe = tiny("model.neuron.threshold=50", *settings).model_copy(update={"compare": None})
    suggested = [each.settings for each in check_recipe_gradients(recipe).report.suggestions]
    assert ("model.neuron.threshold=1",) in suggested
    keys = {each[0].partition("=")[0] for each in suggested if each[0].startswith("branches.")}
    assert keys == ({key} if key else set())


def test_where_there_is_nothing_to_diagnose(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        check_run_gradients(tmp_path)
    folder = RunFolder(tmp_path / "run")
    folder.start(tiny(), overwrite=False)
    with pytest.raises(ValueError, match="without a checkpoint"):
        check_run_gradients(tmp_path / "run")
    assert "a run is diagnosed as it was trained" in refused("diagnose", tmp_path / "run", "-s", "seed=1")


def test_the_command(tmp_path):
    page = tmp_path / "page.html"
    done = run("diagnose", "quickstart", *SETTINGS, "--html", page)
    assert done.returncode == 0, done.stderr
    assert "effective depth" in done.stdout
    assert page.exists()
    # Which does not compare: its method is the one that counts, for what its settings change too.
    own = ("-s", "method=shortcut", "-s", "branches.coefficient=0.5")
    done = run("diagnose", "quickstart", *SETTINGS, *own, "--json")
    assert json.loads(done.stdout)["measurement"]["coefficient"] == 0.5
    content = json.loads(run("diagnose", "quickstart", *SETTINGS, "--json").stdout)
    assert content["judgement"]["verdict"] in done.stdout
    assert len(content["measurement"]["layers"]) == content["judgement"]["num_layers"]

"""Recordings of an event camera from files to a stripped network, and everything that looks at a run."""

import pytest

from shortback.errors import UserError
from shortback.recipes.load import RecipeError, load_recipe
from shortback.runs.diagnose import check_recipe_gradients
from shortback.runs.evaluate import evaluate_run
from shortback.runs.rehearsal import seconds_a_step
from shortback.runs.train import train_recipe
from shortback.training.rows import read_rows
from tests.data.events.conftest import event_folder  # noqa: F401

pytestmark = pytest.mark.slow


def recipe(root, *settings):
    own = [
        "model={name: resnet20, width: 0.25, num_steps: 3}",
        "data={kind: event_folder, frames: {size: 8}, augment: {flip: true, roll: 1}, validation_fraction: 0.2}",
        f"data.root={root}",
        "train={epochs: 1, batch_size: 4, log_every: 1, precision: fp32, compile: off}",
        "compare=",
        "method=evolutionary",
        "health.every=1",
    ]
    return load_recipe("quickstart", settings=[*own, *settings])


def test_a_run_from_the_files_to_the_evaluation(event_folder, tmp_path):  # noqa: F811
    summary = train_recipe(recipe(event_folder), tmp_path / "run", say=lambda line: None)
    assert summary["stripped_is_bit_equal"]
    assert summary["test_images"] == 4
    rows = read_rows(tmp_path / "run" / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["health", "step", "health", "step", "epoch"]
    result = evaluate_run(tmp_path / "run")
    assert list(result["accuracy_by_num_steps"]) == [1, 2, 3]  # of the first steps of each recording
    assert result["test_accuracy"] == summary["test_accuracy"]


def test_a_recipe_is_diagnosed_and_timed(event_folder):  # noqa: F811
    checkup = check_recipe_gradients(recipe(event_folder))
    assert len(checkup.report.neurons) == 19
    assert all(len(neuron.gradient_by_step) == 3 for neuron in checkup.report.neurons)
    seconds, steps = seconds_a_step(recipe(event_folder, "train.accumulate=2"))
    assert seconds > 0
    assert steps == 2


def test_auto_places_are_found_on_sequences(event_folder, tmp_path):  # noqa: F811
    train_recipe(recipe(event_folder, "branches.at=auto"), tmp_path / "run", say=lambda line: None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.augment.auto_augment=cifar10", "data.augment.auto_augment is for photographs"),
        ("data.augment.resized_crop=true", "data.augment.resized_crop is for photographs"),
        ("data.image_size=32", "data.image_size is for images"),
        ("data.kind=cifar10", "data.frames is for recordings of events, and data.kind=cifar10 has images"),
        ("data={kind: image_folder, split: seeded}", "data.split is for recordings of events"),
    ],
)
def test_what_is_for_images_and_what_for_events_is_told_apart(tmp_path, setting, message):
    with pytest.raises(RecipeError, match=message):
        recipe(tmp_path, setting)


def test_a_split_that_a_folder_has_not_is_refused(event_folder, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match="write fifth, or null"):
        train_recipe(recipe(event_folder, "data.split=seeded"), tmp_path / "run", say=lambda line: None)

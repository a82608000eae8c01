"""Whole runs on a little of the bundled data."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import shortback as sb
from shortback.recipes.build import resolve
from shortback.recipes.load import load_recipe
from shortback.runs.compare import branch_shares
from shortback.runs.evaluate import evaluate_run, load_run
from shortback.runs.folder import RunFolder
from shortback.runs.run import Run
from shortback.runs.train import _COMPILING, _equals_unbranched, _say_once, train_recipe
from shortback.training import JsonLines, build_fabric
from shortback.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

TINY = [
    "compare=",
    "model={name: resnet20, width: 0.25, num_steps: 2}",
    "data.train_images=200",
    "train={epochs: 2, batch_size: 20, log_every: 3, precision: fp32, compile: off}",
    "optimizer.lr=0.05",
]


def tiny(*settings):
    return load_recipe("quickstart", settings=[*TINY, *settings])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run and what was said."""
    out, said = tmp_path_factory.mktemp("runs") / "tiny", []
    summary = train_recipe(tiny(), out, say=said.append, name="mine")
    return out, summary, said


def test_that_the_first_step_compiles_is_said_once():
    said = []
    for _ in range(2):
        _say_once(said.append, _COMPILING)
    (line,) = said
    assert line.startswith("the first step compiles kernels")


def test_weights_are_scaled_to_a_firing_rate(tmp_path):
    """A network without norms is dead before training, and fires if asked to; a second run starts from the same."""

    def first_network(*settings):
        run = Run.of(tiny("model.norm=none", "model.residual=plain", "train.epochs=1", *settings))
        return run.build_network()[0], run

    def rates_of(model, run):
        return list(sb.health.firing_rates(model, [run.first_batch(32)[0]]).values())

    assert min(rates_of(*first_network())) == 0
    awake, run = first_network("model.firing_rate=0.15")
    assert all(0.04 < rate < 0.61 for rate in rates_of(awake, run))
    again, _ = first_network("model.firing_rate=0.15", "method=evolutionary")
    assert all(torch.equal(a, b) for a, b in zip(awake.parameters(), again.parameters(), strict=True))
    said = []
    train_recipe(run.recipe, tmp_path / "run", say=said.append)
    assert "weights: scaled, where needed, to a firing rate of 15%" in said
    assert RunFolder(tmp_path / "run").read_recipe().model.firing_rate == 0.15


def test_the_folder_has_all_it_should(run):
    out, summary, said = run
    assert {p.name for p in out.iterdir()} == {
        ".lock",
        "recipe.yaml",
        "metrics.jsonl",
        "summary.json",
        "checkpoints",
        "model.safetensors",
    }
    assert json.loads((out / "summary.json").read_text()) == summary
    expected = {"test_accuracy", "best_val_accuracy", "epochs", "train_seconds", "images_per_second", "peak_memory_mb"}
    assert expected | {"num_parameters", "versions", "git_commit", "seed"} <= set(summary)
    assert summary["stripped_is_bit_equal"] is True
    assert summary["epochs"] == 2
    assert 0 <= summary["test_accuracy"] <= 1
    assert RunFolder(out).read_recipe().train.device == "cpu"
    assert any(line.startswith("mine: resnet20, 2 steps, 8 branches, ") for line in said)
    assert not any("compiles" in line for line in said)
    assert any("cpu" in line and "fp32" in line for line in said)


def test_metrics_have_a_row_a_logging_step_and_a_row_an_epoch(run):
    out, _, _ = run
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["step"]) for r in rows] == [
        ("health", 1),
        *(("step", s) for s in (3, 6, 9)),
        ("epoch", 9),
        *(("step", s) for s in (12, 15, 18)),
        ("epoch", 18),
    ]
    shares = branch_shares(out)
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)


def test_what_is_saved_is_a_plain_network(run):
    out, summary, _ = run
    loaded, _ = load_run(out)
    plain = sb.create_model("resnet20", width=0.25, num_steps=2, in_channels=1)
    assert set(load_file(out / "model.safetensors")) == set(plain.state_dict())
    plain.load_state_dict(load_file(out / "model.safetensors"))
    assert summary["num_parameters"] == sum(p.numel() for p in plain.parameters())
    assert loaded.recipe.method == "evolutionary"
    assert len(loaded.splits.train) == 180


def test_evaluation(run):
    out, summary, _ = run
    result = evaluate_run(out)
    assert result["test_accuracy"] == summary["test_accuracy"]
    assert list(result["accuracy_by_num_steps"]) == [1, 2]
    assert result["accuracy_by_num_steps"][2] == result["test_accuracy"]
    assert len(result["firing_rate_by_layer"]) == 19
    assert all(0 <= rate <= 1 for rate in result["firing_rate_by_layer"].values())


def test_a_finished_run_is_not_run_again(run):
    out, summary, _ = run
    assert train_recipe(tiny(), out, resume=True, say=print) == summary


def test_without_a_validation_split_the_last_weights_are_kept(tmp_path):
    summary = train_recipe(tiny("data.validation_fraction=0", "train.epochs=1"), tmp_path / "run")
    assert summary["best_val_accuracy"] is None
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["net"]
    for name, value in load_file(tmp_path / "run" / "model.safetensors").items():
        assert torch.equal(value, last[f"model.{name}"])


@pytest.mark.parametrize(
    "settings",
    [
        ["loss.kind=tet", "train.ema=0.9", "train.loggers=[tensorboard, csv]"],
        ["data.augment={crop_padding: 2, flip: true, cutout: 4, mixup: 0.2}", "loss.label_smoothing=0.1"],
        ["optimizer={kind: adamw, lr: 0.001}", "train.precision=bf16", "branches.combine=convex"],
        ["method=vanilla", "train.accumulate=2", "optimizer.clip_norm=1"],
    ],
    ids=["tet-ema-tensorboard", "augmented", "adamw-bf16-convex", "vanilla-accumulate"],
)
def test_options_that_change_the_run(tmp_path, settings):
    summary = train_recipe(tiny("train.epochs=1", "data.train_images=60", *settings), tmp_path / "run")
    assert summary["stripped_is_bit_equal"]
    assert (tmp_path / "run" / "tensorboard").exists() == ("train.loggers=[tensorboard, csv]" in settings)


def _go_on(out, kill_after_step, delay):
    """Go on with the run in `out`, and be killed `delay` seconds after a step, wherever that is."""
    torch.set_num_threads(1)
    advance = JsonLines.advance

    def advance_or_die(self, step):
        advance(self, step)
        if step == kill_after_step:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    JsonLines.advance = advance_or_die
    quick = ("model.num_steps=1", "model.width=0.125", "train.checkpoint_every=2")
    train_recipe(tiny(*quick), out, resume=True, say=lambda line: None)


@pytest.mark.processes
def test_killed_at_ten_points_it_ends_with_the_same_weights(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shortback.runs.train", "torch._dynamo"])

    def run(out, *, kill_after_step=None, delay=0.0):
        process = context.Process(target=_go_on, args=(tmp_path / out, kill_after_step, delay))
        process.start()
        process.join()
        return process.exitcode

    assert run("whole") == 0
    rng = random.Random(0)
    points = sorted(rng.sample(range(1, 18), 10))
    codes = [run("cut", kill_after_step=step, delay=rng.uniform(0, 0.02)) for step in points]
    assert codes == [-signal.SIGKILL] * 10
    assert run("cut") == 0
    whole, cut = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    whole, cut = (read_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "cut"))
    assert all(torch.equal(whole["net"][name], cut["net"][name]) for name in whole["net"])


@pytest.mark.processes
def test_torchrun(tmp_path):
    settings = [*TINY, "train.epochs=1", "train.log_every=1", "data.train_images=100"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "shortback", "train"]
    command += ["quickstart", *(part for s in settings for part in ("-s", s)), "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1  # one process speaks
    train_recipe(tiny("train.epochs=1", "train.log_every=1", "data.train_images=100"), tmp_path / "one")
    curves = []
    for name in ("one", "two"):
        rows = map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())
        curves.append([[r["loss"], r["gradient_norm"]] for r in rows if r["kind"] == "step"])
    assert len(curves[0]) == 4
    # In float32 a sum in another order flips a spike here and there; test_distributed compares a run in float64.
    assert [loss for loss, _ in curves[1]] == pytest.approx([loss for loss, _ in curves[0]], rel=0.02)


def test_the_stripped_network_is_compared_in_its_own_memory_format():
    """In bf16 a convolution of three channels sums in another order where weights are channels-last."""
    recipe, execution = resolve(tiny("model.width=1.0", "train.precision=bf16", "train.compile=neuron"))
    source = SimpleNamespace(classes=range(10), in_channels=3, batch_shape=lambda num_samples: (num_samples, 3, 32, 32))
    splits = SimpleNamespace(source=source)
    run = Run(recipe, execution, splits, build_fabric(execution))
    torch.manual_seed(0)
    model = execution.prepare(run.build_model())
    with run.fabric.autocast(), torch.no_grad():
        for _ in range(30):  # statistics with which spikes reach the last layer
            model(torch.randn(16, 3, 32, 32))
    assert _equals_unbranched(run, model)

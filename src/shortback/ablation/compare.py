"""An ablation of the user's own network and loaders: each method with each seed, and the results together."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from shortback.ablation.fingerprint import (
    data_in_words,
    differing_keys,
    irreproducible_names,
    network_in_words,
    optimizer_in_words,
    settings_in_words,
)
from shortback.ablation.groups import Group, group_runs, to_dict
from shortback.ablation.page import write_ablation_page
from shortback.ablation.run import CellRun
from shortback.ablation.table import terminal_tables
from shortback.choices import METHODS, Method, check_choice, usual_start
from shortback.data.seeding import preserve_global_generator
from shortback.errors import UserError
from shortback.files import read_json, write_text
from shortback.inspection.layout import stacked
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed
from shortback.losses import Loss, ShortcutLoss
from shortback.processes import is_first
from shortback.runs.environment import environment
from shortback.runs.summary import Summary
from shortback.schedules import Constant, Linear, Schedule
from shortback.shortcuts import ShortcutNetwork, attach, strip
from shortback.training import FitResult, choose_execution, evaluate, fit
from shortback.training._fit import Loader, loader_of
from shortback.training.execution import build_fabric, choice_in_words
from shortback.training.peak_memory import forget_peak, peak_bytes
from shortback.training.rows import last_row, read_epochs

_SETTINGS = "settings.json"
_NOT_OF_THE_SEED = "not of PyTorch's seed"  # parts of the network that are not compared
_SUCH_AS = {"methods": '["vanilla", "evolutionary"]', "seeds": "3 or seeds=[0, 1, 2]"}


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`; `print` shows it as tables.

    Attributes:
        groups: one per method: means over the seeds, paired differences to vanilla training, and the runs.
        folder: holds `results.json`, a page `report.html`, and the runs.
    """

    groups: list[Group]
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values, as in `results.json`."""
        return to_dict(self.groups)

    def __str__(self) -> str:
        console = Console(width=100, no_color=True)
        with console.capture() as capture:
            console.print(terminal_tables(self.groups))
        return capture.get().rstrip()


def compare(
    make: Callable[[], nn.Module],
    train: Loader,
    *,
    validation: Loader,
    epochs: int,
    folder: str | Path,
    test: Loader | None = None,
    methods: Sequence[Method] = METHODS,
    seeds: int | Sequence[int] = 3,
    places: Mapping[str, Any] | None = None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    loss: ShortcutLoss | Loss | None = None,
    **settings: Any,
) -> Comparison:
    """Train your own network with several methods and the same seeds, one run after another.

    Runs with the same seed start from the same weights and see the same batches, so they differ only by the method. In
    vanilla training, the branches have a coefficient of 0 and are not computed. Finished runs are not repeated and
    stopped runs are resumed: to continue, make the same call again. A folder with runs of another network, number of
    samples, optimizer or other settings is refused; other samples in equal number go unnoticed.

    Args:
        make: makes the network; it is called under each seed, and twice before a new run, to find out whether the
            weights depend on the seed alone.
        train: as for `fit`.
        validation: as for `fit`; chooses the weights, and is meant for choosing a method.
        epochs: epochs of each training.
        folder: for the runs, `results.json` and `report.html`.
        test: read once per run, at its end; by default `validation` is used again, and the results say so.
        methods: `"vanilla"`, `"shortcut"` (a coefficient of 1, eq. 7) and `"evolutionary"` (a falling one, eq. 10).
        seeds: how many, from 0, or which, each once.
        places: arguments of `attach`, such as `{"at": "stages", "reduce": "mean"}`; the sample is the first batch.
        optimizer: makes an optimizer for the parameters of the network passed to it; by default SGD as in `fit`.
        loss: as for `fit`.
        settings: other arguments of `fit`: `lr`, `execution`, `accumulate`, `clip_norm`, `watch_every` ...

    Raises:
        ValueError: as for `attach` and `fit`; a method or seed is given twice, or none is; the folder has other runs,
            or a damaged file.
        NonFiniteError, Interrupted, CheckpointError: see `Trainer.fit`.
    """
    _check_arguments(make, settings)
    methods, seeds = list(methods), list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    for method in methods:
        check_choice("methods", method, Method)
    for name, chosen in (("methods", methods), ("seeds", seeds)):
        if not chosen or len(set(chosen)) < len(chosen):
            raise UserError(f"{name}={chosen}: name one or more, each once, such as {name}={_SUCH_AS[name]}")
    folder, loss = Path(folder), ShortcutLoss.of(loss)
    if "execution" not in settings and "loggers" not in settings and is_first():
        Console(highlight=False, markup=False, soft_wrap=True).print(choice_in_words())
    execution = settings.setdefault("execution", choose_execution())
    fabric = settings.setdefault("fabric", build_fabric(execution))
    sample = _first_input(train)
    settings |= {"epochs": epochs, "loss": loss}
    said = settings_in_words({**settings, "places": dict(places or {})})
    data = {"train": data_in_words(train, sample), "validation": data_in_words(validation), "test": data_in_words(test)}
    runs = []
    for seed in seeds:
        for method in methods:
            path = folder / f"{method}-seed{seed}"
            finished = (path / "summary.json").exists()
            torch.manual_seed(seed)
            model = make()
            before = _read_settings(path)
            without = (
                irreproducible_names(make, model, seed=seed) if before is None else before.get(_NOT_OF_THE_SEED, ())
            )
            made_of = {**data, **network_in_words(model, without=without)}
            forget_peak(fabric.device)
            net = own = None
            if optimizer is not None or not finished:
                net = attach(model, **{"sample": _beside(model, sample), **(places or {})})
                own = None if optimizer is None else optimizer(net)
            _check_settings(path, before, said, {**made_of, **optimizer_in_words(own)}, without=without)
            if not finished:
                assert net is not None
                result = fit(
                    net,
                    train,
                    validation=validation,
                    folder=path,
                    schedule=_schedule(method, loss),
                    optimizer=own,
                    title=f"{method}, seed {seed}",
                    seed=seed,
                    resume=True,
                    **settings,
                )
                summary = _summary(net, result, validation if test is None else test, sample, fabric, loss, execution)
                summary |= {"tested_on": "validation" if test is None else "test", "seed": seed, "method": method}
                if is_first():
                    write_text(path / "summary.json", json.dumps(summary, indent=2))
                fabric.barrier()
            runs.append(_read(path, method, seed))
    comparison = Comparison(group_runs(runs), folder)
    if is_first():
        write_text(folder / "results.json", json.dumps(comparison.to_dict(), indent=2) + "\n")
        write_ablation_page(folder / "report.html", comparison.groups, title=f"Comparison: {folder.name}")
    return comparison


def _check_arguments(make: Any, settings: Mapping[str, Any]) -> None:
    """Refuse a network in place of a function that makes one, and arguments of `attach` among those of `fit`."""
    if isinstance(make, nn.Module):
        name = type(make).__name__
        raise UserError(f"make must be a function that makes a network, not a {name}: write lambda: {name}(...)")
    of_attach = inspect.signature(attach).parameters.keys() - inspect.signature(fit).parameters.keys()
    for key in settings.keys() & of_attach - {"model"}:
        value = repr(settings[key]) if isinstance(settings[key], str | int | list | tuple) else "..."
        raise UserError(f"compare() takes no {key}, an argument of attach(): give it as places={{{key!r}: {value}}}")


def _schedule(method: Method, loss: ShortcutLoss) -> Schedule:
    if method == "evolutionary":
        return Linear(start=usual_start(loss.combine))
    return Constant(value=1.0 if method == "shortcut" else 0.0)


def _first_input(train: Loader) -> Tensor:
    with preserve_global_generator():
        batches: Iterator[Any] = iter(loader_of(train, seed=0).epoch(0))
        x, _ = next(batches)
    return x


def _beside(model: nn.Module, sample: Tensor) -> Tensor:
    """The sample on the device of a network, which training may have moved there."""
    return sample.to(next(model.parameters(), sample).device)


def _read_settings(path: Path) -> dict[str, Any] | None:
    """The settings that the run in a folder began with; None if there is no run."""
    file = path / _SETTINGS
    return read_json(file, instead=f"delete {path}, and the run is made again") if file.exists() else None


def _check_settings(
    path: Path,
    before: Mapping[str, Any] | None,
    said: Mapping[str, str],
    made_of: Mapping[str, str],
    *,
    without: Sequence[str],
) -> None:
    """Check that the run in a folder, finished or not, has these settings; write them if there is no run.

    Keys of `made_of` that are missing from its file are not compared, as earlier versions did not write them.

    Raises:
        ValueError: the run has other settings.
    """
    if before is None:
        path.mkdir(parents=True, exist_ok=True)
        apart = {_NOT_OF_THE_SEED: without} if without else {}
        write_text(path / _SETTINGS, json.dumps({**said, **made_of, **apart}, indent=2))
        return
    before = {key: word for key, word in before.items() if key != _NOT_OF_THE_SEED}
    now = {**said, **{key: word for key, word in made_of.items() if key in before}}
    if other := differing_keys(now, before):
        key = other[0]
        raise UserError(
            f"{path} was trained with {key}={before.get(key)}, and now it is {now.get(key)}: give another folder"
        )


def _summary(
    net: ShortcutNetwork,
    result: FitResult,
    test: Loader,
    sample: Tensor,
    fabric: Fabric,
    loss: ShortcutLoss,
    execution: Any,
) -> dict[str, Any]:
    execution.prepare(net)  # `fit` undid its own preparation
    tested = evaluate(net, loader_of(test, seed=0, fabric=fabric).epoch(0), loss=loss.main, fabric=fabric)
    before = _output(net.eval().model, sample)
    model = strip(net)
    return {
        "test_accuracy": tested.accuracy,
        "test_images": tested.num_images,
        "epochs": result.epochs,
        "steps": result.steps,
        "train_seconds": result.train_seconds,
        "images_per_second": result.images_per_second,
        "best_val_accuracy": result.best_val_accuracy,
        "peak_memory_mb": peak_bytes(fabric.device) / 2**20,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "num_classes": before.shape[-1],
        "stripped_is_bit_equal": torch.equal(before, _output(model, sample)),
        "split": None,
        "execution": execution.describe(),
        **environment(),
    }


def _output(model: nn.Module, sample: Tensor) -> Tensor:
    sample = _beside(model, sample)
    with undisturbed(model, sample), torch.no_grad():
        reset_states(model)
        return stacked(model.eval()(sample.clone()))


def _read(path: Path, method: Method, seed: int) -> CellRun:
    metrics = path / "metrics.jsonl"
    summary = read_json(path / "summary.json", instead="delete it, and the same call writes it again")
    return CellRun((), method, seed, path.name, cast(Summary, summary), None, read_epochs(metrics), last_row(metrics))

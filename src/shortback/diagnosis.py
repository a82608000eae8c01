"""Diagnose a network: measure its gradients on a batch, judge them, and try changes that may help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from shortback.choices import Combine, usual_start
from shortback.copies import deep_copy
from shortback.errors import UserError
from shortback.health import GradientReport, Suggestion, first_samples, judge, measure
from shortback.initialization import scale_to_rate
from shortback.losses import Loss, ShortcutLoss
from shortback.neurons import SpikingNeuron
from shortback.shortcuts import ShortcutNetwork, attach
from shortback.surrogates import Surrogate

NUM_TRIAL_SAMPLES = 16
NUM_SCALING_SAMPLES = 4  # of these, to scale weights on: that runs the network several times for each layer


def diagnose(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    loss: ShortcutLoss | Loss | None = None,
    coefficient: float = 1.0,
    suggest: bool = True,
) -> GradientReport:
    """Check whether a spiking network can learn from a batch: its gradient by layer and time step, and its neurons.

    Runs in training mode, in the caller's precision and autocast, with gradients enabled. The network, its `.grad`,
    statistics, modes, hooks and the random state are left as they were. A layer that is called several times appears
    once, where it was first called, with its whole gradient.

    Args:
        net: any network that `attach` takes or returned, before `torch.compile`.
        x: a batch of at least two samples under batch norm; shares of dead neurons are meaningful from about 64.
        y: its classes `[N]`, or probabilities `[N, K]`.
        loss: the combined loss, by default `ShortcutLoss()`, which adds logits. A loss of a single output, such as
            `TET()`, becomes its `main`.
        coefficient: the coefficient of the branches: 1 for shortcut back-propagation, 0.25 for the start of
            evolutionary training.
        suggest: whether to try changes if the network is not healthy, each on a copy of the network, with the first 16
            samples and the reference backend (weights are scaled on the first 4). If the network cannot be copied, the
            report says so.

    Raises:
        ValueError: the network has no trainable weights, is compiled, keeps state across batches without a reset, or is
            checkpointed with `use_reentrant=True`; the batch has one sample under batch norm, or labels that are not
            classes of the network.
    """
    loss = ShortcutLoss.of(loss)
    report = GradientReport.of(measure(net, x, y, loss=loss, coefficient=coefficient))
    if not suggest or report.judgement.verdict == "healthy":
        return report
    x, y = first_samples(net, x, y, NUM_TRIAL_SAMPLES, loss=loss.main)
    few, _ = first_samples(net, x, y, NUM_SCALING_SAMPLES)

    def judged(changed: nn.Module, coefficient: float):
        settings: dict[str, Any] = {"coefficient": coefficient, "by_branch": False, "backend": "reference"}
        return judge(measure(changed, x, y, loss=loss, **settings))

    before = judged(net, coefficient)
    tried, impossible = [], []
    for trial in _trials(net, report.judgement.verdict, coefficient, loss.combine, few=few):
        try:
            copied = deep_copy(net)
        except Exception as error:  # a module may hold objects that cannot be copied, such as locks
            return dataclasses.replace(report, not_tried=f"the network cannot be copied: {error}")
        try:
            changed = trial.change(copied, x)
        except ValueError as error:  # the network has no blocks or stages, or no layer that feeds neurons
            impossible.append(f"{trial.what}: {str(error).splitlines()[0]}")
            continue
        after = judged(changed, trial.coefficient)
        tried.append(Suggestion(trial.what, trial.settings, before, after, trial.python))
    tried.sort(key=lambda s: (s.helps, s.after.verdict == "healthy", s.after.effective_depth), reverse=True)
    return dataclasses.replace(report, suggestions=tried, num_tried_on=len(y), impossible=impossible)


@dataclass(frozen=True)
class _Trial:
    """A change to try: `change` modifies a copy of the network and returns the network to measure.

    It raises ValueError if the network does not allow the change. The network is measured at `coefficient`; the other
    fields are as in `Suggestion`.
    """

    what: str
    python: str
    settings: tuple[str, ...]
    change: Callable[[nn.Module, Tensor], nn.Module]
    coefficient: float


def _trials(net: nn.Module, verdict: str, coefficient: float, combine: Combine, *, few: Tensor) -> Iterator[_Trial]:
    may_fire_wrongly = verdict in ("dead", "saturated", "vanishing")
    if may_fire_wrongly:
        what = "weights scaled to a firing rate of 10 % in each layer"
        yield _Trial(what, "sb.scale_to_rate(net, x)", ("model.firing_rate=0.1",), _scaled_on(few), coefficient)
    neuron = next((m for m in net.modules() if isinstance(m, SpikingNeuron)), None)
    if neuron is not None:
        key, threshold, surrogate = "model.neuron", neuron.dynamics.threshold, neuron.dynamics.surrogate
        python = f"sb.{type(neuron).__name__}(..., {{}})"
        if may_fire_wrongly:
            value = _other_threshold(threshold, raise_it=verdict == "saturated")
            what = f"threshold {value:g} in place of {threshold:g}"
            settings = (f"{key}.threshold={value:g}",)
            yield _Trial(what, python.format(f"threshold={value:g}"), settings, _with(threshold=value), coefficient)
        if widths := _twice_as_wide(surrogate):
            wider = dataclasses.replace(surrogate, **widths)
            what = f"{_named(widths)} in place of {_named({name: getattr(surrogate, name) for name in widths})}"
            settings = tuple(f"{key}.surrogate.{name}={value:g}" for name, value in widths.items())
            change, python_of_it = _with(surrogate=wider), python.format(f"surrogate={wider}")
            yield _Trial(f"{what}, a surrogate twice as wide", python_of_it, settings, change, coefficient)
        for scale in ("area", "peak"):
            scaled = dataclasses.replace(surrogate, scale=scale)
            if scaled.peak != surrogate.peak:
                what = f"a surrogate of unit {scale}, {scaled.peak:g} at the threshold in place of {surrogate.peak:g}"
                settings = (f"{key}.surrogate.scale={scale}",)
                yield _Trial(what, python.format(f"surrogate={scaled}"), settings, _with(surrogate=scaled), coefficient)
    if isinstance(net, ShortcutNetwork):
        for value in (4 * coefficient, coefficient / 4) if coefficient else (usual_start(combine),):
            if combine == "convex" and value > 1:
                continue
            what = f"coefficient {value:g} in place of {coefficient:g}"
            python, settings = f"coefficient={value:g}", (f"branches.start={value:g}",)
            yield _Trial(what, python, settings, lambda copied, x: copied, value)
        return
    for at in ("blocks", "stages"):
        settings = ("method=evolutionary", f"branches.combine={combine}", f"branches.at={at}")
        start = usual_start(combine)
        python = f"net = sb.attach(net, at={at!r}, sample=x), combine={combine!r}, coefficient from {start:g} to 0"
        yield _Trial(f"branches at {at}", python, settings, _with_branches(at), start)


def _other_threshold(threshold: float, *, raise_it: bool) -> float:
    """Twice the threshold to raise it; to lower it, half of it, or the usual 1 if above 2."""
    if raise_it:
        return 2 * threshold
    return 1.0 if threshold > 2 else threshold / 2


def _twice_as_wide(surrogate: Surrogate) -> dict[str, float]:
    """The parameters with which a surrogate is twice as wide; none for one of the user's own without such names."""
    factors = {"half_width": 2.0, "slope": 0.5}
    return {name: factor * getattr(surrogate, name) for name, factor in factors.items() if hasattr(surrogate, name)}


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def _with(**dynamics: Any) -> Callable[[nn.Module, Tensor], nn.Module]:
    def change(net: nn.Module, x: Tensor) -> nn.Module:
        for module in net.modules():
            if isinstance(module, SpikingNeuron):
                module.dynamics = dataclasses.replace(module.dynamics, **dynamics)
        return net

    return change


def _scaled_on(few: Tensor) -> Callable[[nn.Module, Tensor], nn.Module]:
    def change(net: nn.Module, x: Tensor) -> nn.Module:
        scaling = scale_to_rate(net, few)
        if not scaling.num_scaled:
            left = [f"{layer.neurons}: {layer.left}" for layer in scaling.layers if layer.left]
            raise UserError(left[0] if left else "all layers fire often enough as they are")
        return net

    return change


def _with_branches(at: str) -> Callable[[nn.Module, Tensor], nn.Module]:
    return lambda net, x: attach(net, at=at, sample=x)

"""Find the layer at which values stop being finite."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from shortback.copies import tensors_in
from shortback.inspection.hooks import hooked
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed


@torch.no_grad()
def first_nonfinite(model: nn.Module, x: Tensor) -> str | None:
    """Name the first thing that is not finite, in words; None if all is finite.

    Checked in this order: the weights, in the order of the network; the batch; the outputs of modules, and inputs from
    which a module makes nothing finite, by running `x` through the network in its current mode; the gradients, the last
    in the order of the network first, since it is nearest to the loss. Scores masked with -inf are no mistake, so -inf
    alone is reported only for a module without submodules.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the weight {name}"
    if not x.isfinite().all():
        return "the input batch"
    where = _first_value(model, x)
    if where is not None:
        return where
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return f"the gradient of {bad[-1]}" if bad else None


def _first_value(model: nn.Module, x: Tensor) -> str | None:
    run = _Run()
    before, after = [], []
    for name, module in model.named_modules():
        called = f"{name} ({type(module).__name__})" if name else f"the network ({type(module).__name__})"
        before.append((module, lambda module, inputs, called=called: run.enter(called, module, inputs)))
        after.append((module, lambda module, inputs, output, called=called: run.leave(called, module, output)))
    with hooked(before, before=True), hooked(after), undisturbed(model, x):
        reset_states(model)
        model(x.clone())  # some networks change it in place
    return next((event.what for event in run.events if event.is_wrong), None)


@dataclass
class _Event:
    what: str
    is_wrong: bool


@dataclass
class _Run:
    """Tracks one forward: non-finite values in the order in which they appear, and the modules that are still running.

    A non-finite input is not wrong in itself, since the module may return something finite.
    """

    events: list[_Event] = field(default_factory=list)
    entered: list[tuple[nn.Module, _Event | None]] = field(default_factory=list)

    def enter(self, called: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        event = None
        if not _is_fine(inputs[:1]):  # only the first argument: later ones may be masks
            event = _Event(f"the input of {called}", is_wrong=False)
            self.events.append(event)
        self.entered.append((module, event))

    def leave(self, called: str, module: nn.Module, output: Any) -> None:
        given = None
        while self.entered:  # modules that raised an exception, which their caller caught, are still on the stack
            entered, given = self.entered.pop()
            if entered is module:
                break
        if given is not None:
            given.is_wrong = not _is_fine(output, masked=False)
        is_alone = isinstance(output, Tensor) and not any(module.children())
        if not _is_fine(output, masked=not is_alone):
            self.events.append(_Event(f"the output of {called}", is_wrong=True))


def _is_fine(value: Any, *, masked: bool = True) -> bool:
    """Whether all values are finite; `masked` scores may also be -inf."""
    return all((t.isfinite() | (masked & (t == -math.inf))).all() for t in tensors_in(value))

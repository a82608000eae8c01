"""Find the layer at which numbers stop being finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shortback.inspection.hooks import hooked
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed


@torch.no_grad()
def first_nonfinite(model: nn.Module, x: Tensor) -> str | None:
    """What is the first thing to go wrong, in words, or None if all is finite.

    In this order: a weight, in the order of the network; the batch; what a module was given or returned, by running `x`
    through the network in its mode; a gradient, the one nearest to the loss, where backpropagation met it first.
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
    found: list[str] = []

    def note(what: str, value: Any) -> None:
        if not found and not all(tensor.isfinite().all() for tensor in _tensors(value)):
            found.append(what)

    before, after = [], []
    for name, module in model.named_modules():
        called = f"{name} ({type(module).__name__})" if name else f"the network ({type(module).__name__})"
        # Of what a module is given the first alone: a mask, which comes later, may well be of -inf.
        before.append((module, lambda module, inputs, called=called: note(f"the input of {called}", inputs[:1])))
        after.append((module, lambda module, inputs, output, called=called: note(f"the output of {called}", output)))
    with hooked(before, before=True), hooked(after), undisturbed(model, x):
        reset_states(model)
        model(x)
    return found[0] if found else None


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those with a fraction, wherever they are in what a module was given or returned."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield value
    elif isinstance(value, tuple | list | Mapping):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(each)

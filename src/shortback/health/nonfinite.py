"""Find the layer at which numbers stop being finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shortback.inspection.hooks import hooked
from shortback.inspection.untouched import undisturbed


@torch.no_grad()
def first_nonfinite(model: nn.Module, x: Tensor) -> str | None:
    """What is the first thing to go wrong, in words, or None if all is finite.

    In this order: a weight, in the order of the network; the output of a module, by running `x` through the network in
    its mode; a gradient, the one nearest to the loss, where backpropagation met it first.
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the weight {name}"
    where = _first_output(model, x)
    if where is not None:
        return f"the output of {where}"
    bad = [n for n, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    return f"the gradient of {bad[-1]}" if bad else None


def _first_output(model: nn.Module, x: Tensor) -> str | None:
    if not x.isfinite().all():
        return "the data: the input batch"
    found: list[str] = []

    def check(name: str):
        def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
            if isinstance(output, Tensor) and not found and not output.isfinite().all():
                found.append(f"{name} ({type(module).__name__})")

        return hook

    leaves = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    with hooked((module, check(name)) for name, module in leaves), undisturbed(model, x):
        model(x)
    return found[0] if found else None

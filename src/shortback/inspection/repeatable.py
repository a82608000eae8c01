"""Why the same input gave two outputs: random numbers, or something that the network remembers."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from shortback.inspection.generators import seed_generators
from shortback.inspection.layout import stacked
from shortback.inspection.probes import probes, set_norms
from shortback.inspection.reset import reset_states
from shortback.inspection.untouched import undisturbed


@torch.no_grad()
def why_not_repeatable(model: nn.Module, sample: Tensor) -> Literal["draws", "remembers"] | None:
    """Whether a network in `eval()` draws random numbers, or remembers something that a reset does not undo.

    It draws if calls from different states of the global generators differ, but not calls from one. It is left as it
    was.

    Returns:
        `"draws"` or `"remembers"`; None if the same input gives the same output.
    """
    found = None
    with undisturbed(model, sample):
        model.eval()
        for x, norms_train in probes(sample):
            set_norms(model, training=norms_train)
            seeds = (0, 0, 1)
            first, again, other = (_output(model, x, seed) for seed in seeds)
            if not _same(first, again):
                return "remembers"
            if not _same(first, other):
                found = "draws"
    return found


def _output(model: nn.Module, x: Tensor, seed: int) -> Tensor:
    seed_generators(seed)
    reset_states(model)
    return stacked(model(x.clone())).clone()


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, equal_nan=True)

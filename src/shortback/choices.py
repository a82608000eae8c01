"""The ways to combine the outputs of a network with branches, by name: `losses.py` has their formulas."""

from __future__ import annotations

from typing import Literal

Combine = Literal["logits", "additive", "convex"]
BranchWeights = Literal["sum", "mean"]


def usual_start(combine: Combine) -> float:
    """Where the coefficient of evolutionary training begins: 0.25 for added logits (the paper), 1 for added losses."""
    return 0.25 if combine == "logits" else 1.0

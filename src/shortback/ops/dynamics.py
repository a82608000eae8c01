"""What a neuron does with its membrane at every step, as numbers: what a kernel is compiled for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from shortback.choices import Reset, check_choice
from shortback.errors import UserError
from shortback.surrogates import Surrogate, Triangular


def check_number(name: str, value: object, *, instead: str = "") -> None:
    """Raise `UserError` if a setting is no finite number; `instead` says what to do with a tensor."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        hint = f" ({instead})" if instead and isinstance(value, Tensor) else ""
        raise UserError(f"{name}={value!r}: must be a finite number{hint}")


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    r"""Threshold, reset and surrogate of an integrate-and-fire neuron.

    At step $t$, with membrane $v[t-1]$ left by the step before and input $x[t]$:

    $$u[t] = \lambda\, v[t-1] + x[t], \qquad s[t] = [u[t] \ge \theta]$$
    $$v[t] = u[t]\,(1 - s[t]) \text{ (hard)} \qquad\text{or}\qquad v[t] = u[t] - \theta\, s[t] \text{ (soft)}$$

    With `detach_reset` the $s[t]$ of the second line is a constant to the gradient.

    Raises:
        ValueError: a threshold that is not finite, or an unknown reset.
    """

    threshold: float = 1.0
    reset: Reset = "hard"
    detach_reset: bool = False
    surrogate: Surrogate = field(default_factory=Triangular)

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, instead="learned thresholds are not supported")
        check_choice("reset", self.reset, Reset)
        if not isinstance(self.surrogate, Surrogate):
            raise UserError(
                f"surrogate={self.surrogate!r}: must be a shortback.surrogates.Surrogate, e.g. Triangular()"
            )

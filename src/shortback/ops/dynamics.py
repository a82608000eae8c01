"""What a neuron does with its membrane at every step, as numbers: what a kernel is compiled for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Real

from torch import Tensor

from shortback.choices import Reset, check_choice
from shortback.errors import UserError
from shortback.surrogates import Surrogate, Triangular


def check_number(name: str, value: object, *, instead: str = "") -> None:
    """Raise `UserError` if a setting is no finite number; `instead` says what to do with a tensor."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        hint = f" ({instead})" if instead and isinstance(value, Tensor) else ""
        raise UserError(f"{name}={value!r}: must be a finite number{hint}")


def one_decay(decay: float | Tensor) -> float | Tensor:
    """A decay as the operations take it, a learned one without an axis.

    Raises:
        ValueError: it has several elements.
    """
    if not isinstance(decay, Tensor):
        return decay
    if decay.numel() != 1:
        raise UserError(
            f"a decay of shape {list(decay.shape)}: must be one number for the layer, as PLIF learns it; one for each "
            "channel is not supported"
        )
    return decay.reshape(())


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    r"""What an integrate-and-fire neuron does besides its decay.

    At step $t$, with membrane $v[t-1]$ left by the step before and input $x[t]$:

    $$u[t] = \lambda\, v[t-1] + x[t], \qquad s[t] = [u[t] \ge \theta]$$
    $$v[t] = u[t]\,(1 - s[t]) + r\, s[t] \text{ (hard)}, \qquad v[t] = u[t] - \theta\, s[t] \text{ (soft)}, \qquad
      v[t] = u[t] \text{ (none)}$$

    With `detach_reset` the $s[t]$ of the second line is a constant to the gradient.

    Args:
        threshold: $\theta$.
        reset: of the membrane where it fired.
        detach_reset: see above.
        surrogate: stands in for the derivative of $[\cdot]$.
        reset_to: $r$ of the hard reset. A membrane that also leaks towards $r$ and not to 0, as SpikingJelly's
            `v_reset`, is the same neuron with threshold $\theta - r$ and a reset to 0.
        initial: $v[0]$ before the first step.
        fires_above: fire where $u[t] > \theta$, as snnTorch and Norse do, and not where it is equal.
        decay_input: take $(1 - \lambda)\,x[t]$ for $x[t]$, as SpikingJelly does by default.

    Raises:
        ValueError: a number that is not finite, a threshold that is not positive, an
            unknown reset, a `reset_to` without a hard reset, or a surrogate of
            one's own with numbers that do not tell it from others.
    """

    threshold: float = 1.0
    reset: Reset = "hard"
    detach_reset: bool = False
    surrogate: Surrogate = field(default_factory=Triangular)
    reset_to: float = 0.0
    initial: float = 0.0
    fires_above: bool = False
    decay_input: bool = False

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold, instead=_LEARNED_THRESHOLD)
        if self.threshold <= 0:
            raise UserError(f"threshold={self.threshold!r}: must be above 0, where the membrane rests")
        check_number("reset_to", self.reset_to, instead="a value for each neuron is not supported")
        check_number("initial", self.initial, instead="pass it to step() as the state")
        for name in ("threshold", "reset_to", "initial"):  # NumPy's numbers too are constants of kernels then
            object.__setattr__(self, name, float(getattr(self, name)))
        check_choice("reset", self.reset, Reset)
        if self.reset_to and self.reset != "hard":
            raise UserError(
                f"reset_to={self.reset_to!r}: only a hard reset goes to a value, and this one is {self.reset}"
            )
        if not isinstance(self.surrogate, Surrogate):
            raise UserError(
                f"surrogate={self.surrogate!r}: must be a shortback.surrogates.Surrogate, e.g. Triangular()"
            )
        # A kernel is compiled once for all that are equal, and equal is what has equal fields.
        if hidden := vars(self.surrogate).keys() - {number.name for number in fields(self.surrogate)}:
            raise UserError(
                f"surrogate={self.surrogate!r}: {', '.join(sorted(hidden))} must be a field, half_width: float = 1.0, "
                "of a class under @dataclass(frozen=True, kw_only=True)"
            )


_LEARNED_THRESHOLD = (
    "learned thresholds, and one for each channel, are not supported: the weight of a norm before the neuron, which "
    "divides by what such a threshold would multiply, learns the same spikes"
)

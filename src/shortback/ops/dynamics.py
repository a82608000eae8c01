"""The equations of a neuron's step and their constants, for which kernels are compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from numbers import Real

from torch import Tensor

from shortback.choices import Reset, check_choice
from shortback.errors import UserError
from shortback.surrogates import Surrogate, Triangular


def check_number(name: str, value: object, *, instead: str = "") -> None:
    """Raise `UserError` if a setting is not a finite number; for a tensor, the message includes `instead`."""
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        hint = f" ({instead})" if instead and isinstance(value, Tensor) else ""
        raise UserError(f"{name}={value!r}: must be a finite number{hint}")


def check_count(name: str, value: object, *, least: int = 1, why: str = "") -> None:
    """Raise `UserError` if a setting is not a whole number of at least `least`; the message includes `why`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name}={value!r}: must be a whole number, {least} or more{why and f', {why}'}")


def as_scalar_decay(decay: float | Tensor) -> float | Tensor:
    """Return a decay in the form that operations take: a learned one as a zero-dimensional tensor.

    Raises:
        ValueError: the decay has several elements.
    """
    if not isinstance(decay, Tensor):
        return decay
    if decay.numel() != 1:
        raise UserError(
            f"a decay of shape {list(decay.shape)}: must be one number for the layer, as PLIF learns it; one per "
            "channel is not supported"
        )
    return decay.reshape(())


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    r"""The settings of an integrate-and-fire neuron, apart from its decay $\lambda$.

    At step $t$, with the membrane $v[t-1]$ after the previous step and the input $x[t]$:

    $$u[t] = \lambda\, v[t-1] + x[t], \qquad s[t] = [u[t] \ge \theta]$$
    $$v[t] = u[t]\,(1 - s[t]) + r\, s[t] \text{ (hard)}, \qquad v[t] = u[t] - \theta\, s[t] \text{ (soft)}, \qquad
      v[t] = u[t] \text{ (none)}$$

    With `detach_reset`, the gradient treats $s[t]$ in the second line as a constant.

    Args:
        threshold: $\theta$.
        reset: how the membrane is reset after a spike, `"hard"`, `"soft"` or `"none"`.
        detach_reset: see above.
        surrogate: replaces the derivative of $[\cdot]$.
        reset_to: $r$ of the hard reset. A neuron whose membrane also leaks towards $r$ instead of 0, as with
            SpikingJelly's `v_reset`, is equivalent to one with threshold $\theta - r$ and a reset to 0.
        initial: $v[0]$, the membrane before the first step.
        fires_above: whether to fire only where $u[t] > \theta$, as snnTorch and Norse do, and not at equality.
        decay_input: whether to use $(1 - \lambda)\,x[t]$ in place of $x[t]$, as SpikingJelly does by default.

    Raises:
        ValueError: a number is not finite, the threshold is not positive, the reset is unknown, `reset_to` is given
            without a hard reset, or a user's surrogate has attributes that are not fields of its dataclass.
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
            raise UserError(f"threshold={self.threshold!r}: must be above 0, the resting potential")
        check_number("reset_to", self.reset_to, instead="a value for each neuron is not supported")
        check_number("initial", self.initial, instead="pass it to step() as the state")
        for name in ("threshold", "reset_to", "initial"):  # NumPy scalars too become constants of the kernels
            object.__setattr__(self, name, float(getattr(self, name)))
        check_choice("reset", self.reset, Reset)
        if self.reset_to and self.reset != "hard":
            raise UserError(
                f"reset_to={self.reset_to!r}: only a hard reset sets the membrane to a value, but reset={self.reset!r}"
            )
        if not isinstance(self.surrogate, Surrogate):
            raise UserError(
                f"surrogate={self.surrogate!r}: must be a shortback.surrogates.Surrogate, e.g. Triangular()"
            )
        # A kernel is compiled once for all surrogates that are equal, and equality compares the fields alone.
        if hidden := vars(self.surrogate).keys() - {number.name for number in fields(self.surrogate)}:
            raise UserError(
                f"surrogate={self.surrogate!r}: {', '.join(sorted(hidden))} must be a field, like "
                "half_width: float = 1.0 in a class decorated with @dataclass(frozen=True, kw_only=True)"
            )


_LEARNED_THRESHOLD = (
    "learned thresholds, and thresholds per channel, are not supported: the weight of a norm before the neuron can "
    "learn the same spikes, since scaling the input has the effect of dividing the threshold"
)

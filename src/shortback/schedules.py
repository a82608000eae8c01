r"""Schedules of the balance coefficient: pure functions $c(p)$ of the progress $p \in [0, 1]$ of training.

Shortcut back-propagation has the constant 1 (Guo et al., NeurIPS 2024, eq. 7); that of evolutionary training falls in a
straight line from 0.25 to 0, taken anew at every iteration (eq. 10): `Constant(value=1.0)` and `Linear(start=0.25)`.
Vanilla training is 0. The other shapes are Shortback's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, cast

from shortback.choices import Combine, ScheduleKind, check_choice
from shortback.errors import UserError


class Schedule:
    """The balance coefficient $c(p)$ by progress.

    Attributes:
        measures: whether it follows what training measures of the gradients; otherwise it is a function of progress
            alone, and the ratio makes no difference.
    """

    measures: ClassVar[bool] = False

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        """The coefficient.

        Args:
            progress: in [0, 1].
            main_over_branches: the ratio measured last, see `shortback.health.main_over_branches`.
        """
        raise NotImplementedError

    def is_zero_from(self, progress: float) -> bool:
        """Whether the coefficient is and stays 0, so that branches need not be computed any more."""
        return False

    def check_combine(self, combine: Combine) -> None:
        """See that the coefficient is meant for a loss that combines main output and branches so.

        Raises:
            ValueError: it is computed for another.
        """


@dataclass(frozen=True)
class Function(Schedule):
    """A function of progress of the user's own, which says nothing of what it will be later."""

    function: Callable[[float], float]

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        return self.function(progress)


def as_schedule(schedule: Schedule | Callable[[float], float] | float) -> Schedule:
    """A schedule, from one, from a function of progress or from a number, one of NumPy's or a tensor of one too.

    Raises:
        ValueError: anything else, the class of a schedule too.
    """
    if _is_number(schedule):
        return Constant(value=cast("float", schedule))
    if isinstance(schedule, type):
        raise UserError(f"schedule={schedule.__name__} is a class: write {schedule.__name__}()")
    if not callable(schedule):
        raise UserError(f"schedule={schedule!r}: must be a shortback.schedules.Schedule or a function of progress")
    return schedule if isinstance(schedule, Schedule) else Function(schedule)


@dataclass(frozen=True)
class Constant(Schedule):
    """$c(p) = value$ all along."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _settle_numbers(self, "value")
        _check_coefficients(self, "value")

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        _check_progress(progress)
        return self.value

    def is_zero_from(self, progress: float) -> bool:
        return self.value == 0


@dataclass(frozen=True)
class _Falling(Schedule):
    """From `start` to `end` over the first part, `over`, of training; `end` from there on.

    Raises:
        ValueError: a coefficient that is negative or not finite, or `over` outside (0, 1].
    """

    start: float = 1.0
    end: float = 0.0
    over: float = 1.0

    def __post_init__(self) -> None:
        _settle_numbers(self, "start", "end", "over")
        _check_coefficients(self, "start", "end")
        if not 0 < self.over <= 1:
            raise UserError(f"{type(self).__name__}(over={self.over!r}): must be in (0, 1]")

    def is_zero_from(self, progress: float) -> bool:
        return _has_fallen_to_0(self, progress)

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        _check_progress(progress)
        q = progress / self.over
        return self.end if q >= 1 else self._between(q)

    def _between(self, q: float) -> float:
        """The coefficient at `q` in [0, 1) of the way."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Falling):
    r"""$c = a + (b - a)\,q$ with $q = p / \text{over}$."""

    def _between(self, q: float) -> float:
        return self.start + (self.end - self.start) * q


@dataclass(frozen=True)
class Cosine(_Falling):
    r"""$c = b + \tfrac{1}{2} (a - b)(1 + \cos \pi q)$."""

    def _between(self, q: float) -> float:
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * q))


@dataclass(frozen=True)
class Exponential(_Falling):
    r"""$c = b + (a - b) \frac{e^{-rq} - e^{-r}}{1 - e^{-r}}$: a decay of `rate` $r$ that ends exactly at $b$."""

    rate: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _settle_numbers(self, "rate")
        if not 0 < self.rate < math.inf:
            raise UserError(f"Exponential(rate={self.rate!r}): must be a positive number")

    def _between(self, q: float) -> float:
        # By what is left of 1, which a small rate takes no digits from: it is a straight line in the limit.
        whole = math.expm1(-self.rate)
        return self.end + (self.start - self.end) * (whole - math.expm1(-self.rate * q)) / whole


@dataclass(frozen=True)
class Step(_Falling):
    """`num_levels` equal levels from `start` to `end`, the last of them from `over` on."""

    num_levels: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_levels, int) or self.num_levels < 2:
            raise UserError(f"Step(num_levels={self.num_levels!r}): must be a whole number, 2 or more")

    def _between(self, q: float) -> float:
        gaps = self.num_levels - 1
        # The number of an iteration over that of all, times another number, may be a little below the whole one it is.
        return self.start + (self.end - self.start) * math.floor(q * gaps + 1e-9) / gaps


@dataclass(frozen=True)
class Adaptive(Schedule):
    r"""The coefficient that gives the branches a share $s(p)$ of the first layer's gradient, which falls linearly.

    With $\rho$ the norm of the main gradient there over that of the branches at coefficient 1, measured now and then
    (`shortback.health.main_over_branches`), the share is

    $$\frac{c}{\rho + c} = s \quad\Rightarrow\quad c = \rho\,\frac{s}{1 - s} \text{ (logits, additive)}, \qquad
      \frac{c}{\rho (1 - c) + c} = s \quad\Rightarrow\quad c = \frac{\rho\,s}{1 - s + \rho\,s} \text{ (convex)}$$

    Where logits are added, the gradient of the one loss depends on $c$ itself, so $\rho$ is measured at the coefficient
    in use, a few times in a row.

    Where the main gradient does not reach the first layer, $\rho$ and with it $c$ would be 0, and nothing else would
    either: so $c$ is at least $c_{min}\, s(p) / s_{max}$, which falls to 0 with the share.

    Args:
        start: the share at the beginning, in [0, 1).
        end: the share from `over` on, in [0, 1).
        over: the part of training in which it falls, in (0, 1].
        largest: the coefficient is never above it, whatever is measured; never above 1 where the loss is convex.
        smallest: $c_{min}$, which the coefficient is never below while the share is the largest, that of `start` where
            it falls; at most 1 where the loss is convex. 0 for none.
        combine: as in the loss, `"logits"`, `"additive"` or `"convex"`.

    Raises:
        ValueError: a number outside its range, or an unknown way to combine.
    """

    start: float = 0.5
    end: float = 0.0
    over: float = 1.0
    largest: float = 10.0
    combine: Combine = "logits"
    smallest: float = 0.01
    measures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _settle_numbers(self, "start", "end", "over", "largest", "smallest")
        check_choice("combine", self.combine, Combine)
        for name, share in (("start", self.start), ("end", self.end)):
            if not 0 <= share < 1:
                raise UserError(f"Adaptive({name}={share!r}): a share, must be in [0, 1)")
        if not 0 < self.over <= 1:
            raise UserError(f"Adaptive(over={self.over!r}): must be in (0, 1]")
        if not 0 < self.largest < math.inf:
            raise UserError(f"Adaptive(largest={self.largest!r}): must be a positive number")
        if not 0 <= self.smallest < math.inf or (self.combine == "convex" and self.smallest > 1):
            allowed = "between 0 and 1" if self.combine == "convex" else "0 or a positive number"
            raise UserError(f"Adaptive(smallest={self.smallest!r}): must be {allowed}")

    def share(self, progress: float) -> float:
        """The share aimed at."""
        _check_progress(progress)
        q = min(1.0, progress / self.over)
        return self.start + (self.end - self.start) * q

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        share = self.share(progress)
        if share == 0:
            return 0.0
        coefficient = main_over_branches * share / (1 - share)
        if self.combine == "convex":
            coefficient = coefficient / (1 + coefficient) if coefficient < math.inf else 1.0
        return min(self.largest, max(coefficient, self.smallest * share / max(self.start, self.end)))

    def is_zero_from(self, progress: float) -> bool:
        return _has_fallen_to_0(self, progress)

    def check_combine(self, combine: Combine) -> None:
        if (self.combine == "convex") != (combine == "convex"):
            raise UserError(
                f"schedule=Adaptive(combine={self.combine!r}) with a loss that combines by {combine!r}, where the "
                f"branches' share is another function of the coefficient: write Adaptive(combine={combine!r})"
            )


SCHEDULES: dict[ScheduleKind, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "step": Step,
    "adaptive": Adaptive,
}


def _has_fallen_to_0(schedule: _Falling | Adaptive, progress: float) -> bool:
    return schedule.end == 0 and (progress >= schedule.over or schedule.start == 0)


def _check_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise UserError(f"progress={progress!r}: must be between 0 (start of training) and 1 (its end)")


def _is_number(value: object) -> bool:
    """Whether it is one, as NumPy's and tensors without an axis are."""
    return isinstance(value, Real) or getattr(value, "ndim", None) == 0


def _settle_numbers(schedule: object, *names: str) -> None:
    """See that settings are numbers, and make them Python's own."""
    for name in names:
        value: Any = getattr(schedule, name)
        if not _is_number(value):
            raise UserError(f"{type(schedule).__name__}({name}={value!r}): must be a number")
        object.__setattr__(schedule, name, float(value))


def _check_coefficients(schedule: object, *names: str) -> None:
    for name in names:
        value = getattr(schedule, name)
        if not 0 <= value < math.inf:
            raise UserError(f"{type(schedule).__name__}({name}={value!r}): must be 0 or a positive number")

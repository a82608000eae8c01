r"""Schedules of the balance coefficient: pure functions $c(p)$ of the progress $p \in [0, 1]$ of training.

Shortcut back-propagation uses the constant 1 (Guo et al., NeurIPS 2024, eq. 7), `Constant(value=1.0)`; in evolutionary
training the coefficient falls linearly from 0.25 to 0, updated at every iteration (eq. 10), `Linear(start=0.25)`.
Vanilla training uses 0. The other shapes are Shortback's own.
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
    """The balance coefficient $c(p)$ as a function of progress.

    Attributes:
        measures: whether the coefficient depends on the gradient ratio that training measures; otherwise it is a
            function of progress alone, and the ratio is ignored.
    """

    measures: ClassVar[bool] = False

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        """Return the coefficient.

        Args:
            progress: of training, in [0, 1].
            main_over_branches: the ratio last measured, see `shortback.health.main_over_branches`.
        """
        raise NotImplementedError

    def is_zero_from(self, progress: float) -> bool:
        """Return whether the coefficient is 0 from `progress` on, so that branches need no longer be computed."""
        return False

    def check_combine(self, combine: Combine) -> None:
        """Check that the coefficient suits a loss that combines main output and branches by `combine`.

        Raises:
            ValueError: the coefficient is computed for another way to combine.
        """


@dataclass(frozen=True)
class Function(Schedule):
    """Wraps a user's function of progress; as its later values are unknown, branches are never dropped early."""

    function: Callable[[float], float]

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        return self.function(progress)


def as_schedule(schedule: Schedule | Callable[[float], float] | float) -> Schedule:
    """Make a schedule from a schedule, a function of progress, or a number (Python, NumPy or a tensor without axes).

    Raises:
        ValueError: `schedule` is anything else, such as the class of a schedule.
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
    """$c(p) = value$ throughout, as in eq. 7.

    Raises:
        ValueError: `value` is negative or not finite.
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        _convert_numbers(self, "value")
        _check_coefficients(self, "value")

    def __call__(self, progress: float, main_over_branches: float = 1.0) -> float:
        _check_progress(progress)
        return self.value

    def is_zero_from(self, progress: float) -> bool:
        return self.value == 0


@dataclass(frozen=True)
class _Ramp(Schedule):
    """Goes from `start` to `end` over the first fraction `over` of training, and stays at `end`.

    Raises:
        ValueError: a coefficient is negative or not finite, or `over` is outside (0, 1].
    """

    start: float = 1.0
    end: float = 0.0
    over: float = 1.0

    def __post_init__(self) -> None:
        _convert_numbers(self, "start", "end", "over")
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
        """Return the coefficient after the fraction `q` in [0, 1) of the way."""
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Ramp):
    r"""$c = a + (b - a)\,q$ with $q = p / \text{over}$, from $a$ = `start` to $b$ = `end`, as in eq. 10."""

    def _between(self, q: float) -> float:
        return self.start + (self.end - self.start) * q


@dataclass(frozen=True)
class Cosine(_Ramp):
    r"""$c = b + \tfrac{1}{2} (a - b)(1 + \cos \pi q)$, with $a$, $b$ and $q$ as in `Linear`."""

    def _between(self, q: float) -> float:
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * q))


@dataclass(frozen=True)
class Exponential(_Ramp):
    r"""$c = b + (a - b) \frac{e^{-rq} - e^{-r}}{1 - e^{-r}}$: a decay of `rate` $r$ that ends exactly at $b$.

    $a$, $b$ and $q$ are as in `Linear`.

    Raises:
        ValueError: `rate` is not a positive number, or as for `Linear`.
    """

    rate: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _convert_numbers(self, "rate")
        if not 0 < self.rate < math.inf:
            raise UserError(f"Exponential(rate={self.rate!r}): must be a positive number")

    def _between(self, q: float) -> float:
        # expm1 keeps its digits at a small rate, where the curve tends to a straight line.
        whole = math.expm1(-self.rate)
        return self.end + (self.start - self.end) * (whole - math.expm1(-self.rate * q)) / whole


@dataclass(frozen=True)
class Step(_Ramp):
    """Steps through `num_levels` evenly spaced levels from `start` to `end`; the last level begins at `over`."""

    num_levels: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.num_levels, int) or self.num_levels < 2:
            raise UserError(f"Step(num_levels={self.num_levels!r}): must be a whole number, 2 or more")

    def _between(self, q: float) -> float:
        gaps = self.num_levels - 1
        # step / total_steps * gaps may round to slightly below the integer that it equals.
        return self.start + (self.end - self.start) * math.floor(q * gaps + 1e-9) / gaps


@dataclass(frozen=True)
class Adaptive(Schedule):
    r"""Gives the branches a share $s(p)$ of the first layer's gradient, which falls linearly.

    With $\rho$ the norm of the main gradient at that layer over that of the branches at coefficient 1, measured now and
    then (`shortback.health.main_over_branches`), the share is

    $$\frac{c}{\rho + c} = s \quad\Rightarrow\quad c = \rho\,\frac{s}{1 - s} \text{ (logits, additive)}, \qquad
      \frac{c}{\rho (1 - c) + c} = s \quad\Rightarrow\quad c = \frac{\rho\,s}{1 - s + \rho\,s} \text{ (convex)}$$

    Where logits are added, the gradient of the single loss depends on $c$ itself, so $\rho$ is measured at the
    coefficient in use, a few times in a row.

    Where the main gradient does not reach the first layer, $\rho$ and $c$ would be 0, and the layer would get no
    gradient at all. Therefore $c$ is at least $c_{min}\, s(p) / s_{max}$, a bound that falls to 0 with the share.

    Args:
        start: the share at the beginning, in [0, 1).
        end: the share from `over` on, in [0, 1).
        over: the fraction of training over which the share falls, in (0, 1].
        largest: upper bound of the coefficient, whatever is measured; a convex loss also bounds it by 1.
        smallest: $c_{min}$, the lower bound of the coefficient at the largest share (that of `start` if the share
            falls); at most 1 for a convex loss. 0 means no bound.
        combine: as in the loss, `"logits"`, `"additive"` or `"convex"`.

    Raises:
        ValueError: a number is outside its range, or the way to combine is unknown.
    """

    start: float = 0.5
    end: float = 0.0
    over: float = 1.0
    largest: float = 10.0
    combine: Combine = "logits"
    smallest: float = 0.01
    measures: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _convert_numbers(self, "start", "end", "over", "largest", "smallest")
        check_choice("combine", self.combine, Combine)
        for name, share in (("start", self.start), ("end", self.end)):
            if not 0 <= share < 1:
                raise UserError(f"Adaptive({name}={share!r}): a share must be in [0, 1)")
        if not 0 < self.over <= 1:
            raise UserError(f"Adaptive(over={self.over!r}): must be in (0, 1]")
        if not 0 < self.largest < math.inf:
            raise UserError(f"Adaptive(largest={self.largest!r}): must be a positive number")
        if not 0 <= self.smallest < math.inf or (self.combine == "convex" and self.smallest > 1):
            allowed = "between 0 and 1" if self.combine == "convex" else "0 or a positive number"
            raise UserError(f"Adaptive(smallest={self.smallest!r}): must be {allowed}")

    def share(self, progress: float) -> float:
        """Return the target share of the branches."""
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
                f"schedule=Adaptive(combine={self.combine!r}) with a loss that combines by {combine!r}: "
                f"the share depends on it, so write Adaptive(combine={combine!r})"
            )


SCHEDULES: dict[ScheduleKind, type[Schedule]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "step": Step,
    "adaptive": Adaptive,
}


def _has_fallen_to_0(schedule: _Ramp | Adaptive, progress: float) -> bool:
    return schedule.end == 0 and (progress >= schedule.over or schedule.start == 0)


def _check_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise UserError(f"progress={progress!r}: must be between 0 (start of training) and 1 (its end)")


def _is_number(value: object) -> bool:
    """Return whether a value is a number; NumPy scalars and tensors without axes are numbers too."""
    return isinstance(value, Real) or getattr(value, "ndim", None) == 0


def _convert_numbers(schedule: object, *names: str) -> None:
    """Check that fields are numbers, and convert them to `float`."""
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

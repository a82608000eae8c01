r"""Schedules of the balance coefficient: pure functions $c(p)$ of the progress $p \in [0, 1]$ of training.

A constant $c$ is plain shortcut back-propagation, one that falls is evolutionary training (Guo et al., NeurIPS 2024),
and 0 is vanilla training. The paper names the coefficient and what it does; the formulas here are Shortback's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """$c(p) = value$ all along."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _check_coefficients(self, value=self.value)

    def __call__(self, progress: float) -> float:
        _check_progress(progress)
        return self.value


@dataclass(frozen=True, kw_only=True)
class _Falling:
    """From `start` to `end` over the first part, `over`, of training; `end` from there on.

    Raises:
        ValueError: a coefficient that is negative or not finite, or `over` outside (0, 1].
    """

    start: float = 1.0
    end: float = 0.0
    over: float = 1.0

    def __post_init__(self) -> None:
        _check_coefficients(self, start=self.start, end=self.end)
        if not 0 < self.over <= 1:
            raise ValueError(f"{type(self).__name__}(over={self.over!r}): must be in (0, 1]")

    def __call__(self, progress: float) -> float:
        _check_progress(progress)
        q = progress / self.over
        return self.end if q >= 1 else self._between(q)

    def _between(self, q: float) -> float:
        """The coefficient at `q` in [0, 1) of the way."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Linear(_Falling):
    r"""$c = a + (b - a)\,q$ with $q = p / \text{over}$."""

    def _between(self, q: float) -> float:
        return self.start + (self.end - self.start) * q


@dataclass(frozen=True, kw_only=True)
class Cosine(_Falling):
    r"""$c = b + \tfrac{1}{2} (a - b)(1 + \cos \pi q)$."""

    def _between(self, q: float) -> float:
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * q))


@dataclass(frozen=True, kw_only=True)
class Exponential(_Falling):
    r"""$c = b + (a - b) \frac{e^{-rq} - e^{-r}}{1 - e^{-r}}$: a decay of `rate` $r$ that ends exactly at $b$."""

    rate: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < math.inf:
            raise ValueError(f"Exponential(rate={self.rate!r}): must be a positive number")

    def _between(self, q: float) -> float:
        floor = math.exp(-self.rate)
        return self.end + (self.start - self.end) * (math.exp(-self.rate * q) - floor) / (1 - floor)


@dataclass(frozen=True, kw_only=True)
class Step(_Falling):
    """`num_levels` equal levels from `start` to `end`, the last of them from `over` on."""

    num_levels: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_levels < 2:
            raise ValueError(f"Step(num_levels={self.num_levels!r}): must be 2 or more")

    def _between(self, q: float) -> float:
        gaps = self.num_levels - 1
        return self.start + (self.end - self.start) * math.floor(q * gaps) / gaps


SCHEDULES: dict[str, type] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "exponential": Exponential,
    "step": Step,
}


def is_zero_from(schedule: Schedule, progress: float) -> bool:
    """Whether the coefficient is and stays 0 from `progress` on, so that branches need not be computed any more."""
    if isinstance(schedule, Constant):
        return schedule.value == 0
    if isinstance(schedule, _Falling):
        return schedule.end == 0 and (progress >= schedule.over or schedule.start == 0)
    return False


def _check_progress(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise ValueError(f"progress={progress!r}: must be between 0 (start of training) and 1 (its end)")


def _check_coefficients(schedule: object, **coefficients: float) -> None:
    for name, value in coefficients.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{type(schedule).__name__}({name}={value!r}): must be 0 or a positive number")

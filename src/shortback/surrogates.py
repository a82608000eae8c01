r"""Surrogate gradients, which replace the derivative of the firing function.

A neuron fires $s = H(z)$, where $z = u - \theta$ is the membrane potential above the threshold and $H$ the step
function, whose derivative is zero almost everywhere. Training replaces it by a surrogate $g(z) = a\,h(z)$: a shape
$h$ with $h(0) = 1$, and an amplitude $a$. `scale` sets the amplitude:

- `"area"` (default): $a = 1 / \int h$, so that $g$ is the derivative of a smooth step from 0 to 1;
- `"peak"`: $a = 1$, so that the derivative at the threshold is 1 whatever the width;
- a positive number: $a$ itself, the height at the threshold.

The choice compounds with depth: each layer multiplies the gradient that passes back through it by values of $g$, so
with a narrow surrogate gradients explode through many layers at unit area and vanish at unit peak. All widths are in
the units of $u$.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from shortback.choices import SurrogateKind, SurrogateScale, nearest
from shortback.errors import UserError

Scale = SurrogateScale | float


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """Base class of the surrogates: an immutable value, equal to another of its class with the same fields.

    Raises:
        ValueError: a width, slope or scale is not a positive finite number.
    """

    scale: Scale = "area"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name == "scale" and value in ("area", "peak"):
                continue
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or not 0 < float(value) < math.inf:
                allowed = "'area', 'peak' or a positive number" if field.name == "scale" else "a positive number"
                raise UserError(f"{type(self).__name__}({field.name}={value!r}): must be {allowed}")
            object.__setattr__(self, field.name, float(value))  # NumPy's numbers, too

    def gradient(self, z: Tensor) -> Tensor:
        """Return the surrogate derivative $g(z)$ at `z`, the membrane potential minus the threshold, of any shape."""
        return self.peak * self._shape(z)

    def value(self, z: Tensor) -> Tensor:
        r"""Return the smooth step whose derivative is `gradient`: $\int_{-\infty}^{z} g$, from 0 to `area`."""
        return self.peak * (self._integral(z) + self._shape_area / 2)

    @property
    def peak(self) -> float:
        """$g(0)$, the largest derivative."""
        if self.scale == "area":
            return 1 / self._shape_area
        return 1.0 if self.scale == "peak" else float(self.scale)

    @property
    def area(self) -> float:
        r"""$\int g$ over the real line."""
        return self.peak * self._shape_area

    @property
    def _shape_area(self) -> float:
        raise NotImplementedError

    def _shape(self, z: Tensor) -> Tensor:
        """$h(z)$, with $h(0) = 1$."""
        raise NotImplementedError

    def _integral(self, z: Tensor) -> Tensor:
        r"""$\int_0^z h$."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Rectangular(Surrogate):
    r"""$h(z) = 1$ for $|z| < w$, else 0 (STBP, Wu et al. 2018). The shape has area $2w$."""

    half_width: float = 0.5

    @property
    def _shape_area(self) -> float:
        return 2 * self.half_width

    def _shape(self, z: Tensor) -> Tensor:
        return (z.abs() < self.half_width).to(z.dtype)

    def _integral(self, z: Tensor) -> Tensor:
        return z.clamp(-self.half_width, self.half_width)


@dataclass(frozen=True, kw_only=True)
class Triangular(Surrogate):
    r"""$h(z) = \max(0, 1 - |z| / w)$ (Esser et al. 2016). The shape has area $w$; both scales agree at $w=1$."""

    half_width: float = 1.0

    @property
    def _shape_area(self) -> float:
        return self.half_width

    def _shape(self, z: Tensor) -> Tensor:
        return (1 - z.abs() / self.half_width).clamp_min(0)

    def _integral(self, z: Tensor) -> Tensor:
        inside = z.clamp(-self.half_width, self.half_width)
        return inside - inside * inside.abs() / (2 * self.half_width)


@dataclass(frozen=True, kw_only=True)
class Arctan(Surrogate):
    r"""$h(z) = 1 / (1 + (\pi k z / 2)^2)$ (Fang et al. 2021). The shape has area $2/k$; both scales agree at $k=2$."""

    slope: float = 2.0

    @property
    def _shape_area(self) -> float:
        return 2 / self.slope

    def _shape(self, z: Tensor) -> Tensor:
        return 1 / (1 + (math.pi / 2 * self.slope * z).square())

    def _integral(self, z: Tensor) -> Tensor:
        return torch.atan(math.pi / 2 * self.slope * z) * (2 / (math.pi * self.slope))


@dataclass(frozen=True, kw_only=True)
class Sigmoid(Surrogate):
    r"""$h(z) = 4\,\sigma(kz)\,(1 - \sigma(kz))$. The shape has area $4/k$."""

    slope: float = 4.0

    @property
    def _shape_area(self) -> float:
        return 4 / self.slope

    def _shape(self, z: Tensor) -> Tensor:
        sigma = torch.sigmoid(self.slope * z)
        return 4 * sigma * (1 - sigma)

    def _integral(self, z: Tensor) -> Tensor:
        return (torch.sigmoid(self.slope * z) - 0.5) * (4 / self.slope)


@dataclass(frozen=True, kw_only=True)
class FastSigmoid(Surrogate):
    r"""$h(z) = 1 / (1 + k|z|)^2$ (SuperSpike, Zenke & Ganguli 2018). The shape has area $2/k$."""

    slope: float = 2.0

    @property
    def _shape_area(self) -> float:
        return 2 / self.slope

    def _shape(self, z: Tensor) -> Tensor:
        return 1 / (1 + self.slope * z.abs()).square()

    def _integral(self, z: Tensor) -> Tensor:
        return z / (1 + self.slope * z.abs())


@dataclass(frozen=True, kw_only=True)
class TanhWindow(Surrogate):
    r"""$h(z) = 1 - \tanh^2(kz)$ for $|z| \le w$, else 0 (authors' code of MPBN, Guo et al., ICCV 2023).

    The shape has area $2\tanh(kw)/k$. Their neuron fires when $u / V_{th} > 0.5$ and lets gradients through for
    $u / V_{th}$ in $[0, 1]$: with $V_{th} = 1$, that is a threshold of 0.5 and these defaults.
    """

    half_width: float = 0.5
    slope: float = 3.0

    @property
    def _shape_area(self) -> float:
        return 2 * math.tanh(self.slope * self.half_width) / self.slope

    def _shape(self, z: Tensor) -> Tensor:
        inside = (z.abs() <= self.half_width).to(z.dtype)
        return (1 - torch.tanh(self.slope * z).square()) * inside

    def _integral(self, z: Tensor) -> Tensor:
        return torch.tanh(self.slope * z.clamp(-self.half_width, self.half_width)) / self.slope


SURROGATES: dict[SurrogateKind, type[Surrogate]] = {
    "rectangular": Rectangular,
    "triangular": Triangular,
    "arctan": Arctan,
    "sigmoid": Sigmoid,
    "fast_sigmoid": FastSigmoid,
    "tanh_window": TanhWindow,
}

if not TYPE_CHECKING:  # with a module `__getattr__`, type checkers would accept any name

    def __getattr__(name: str) -> NoReturn:
        names = [surrogate.__name__ for surrogate in SURROGATES.values()]
        hint = "" if name.startswith("_") else f"; the nearest are {nearest(name, names, or_else=', '.join(names))}"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")

"""The sections of a recipe on the network: what it is, and its neurons."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from shortback.choices import (
    Backend,
    NeuronKind,
    Norm,
    Pool,
    Reset,
    Residual,
    Stem,
    SurrogateKind,
    SurrogateScale,
    nearest,
)
from shortback.errors import UserError
from shortback.recipes.fields import Count, Positive, Section


class SurrogateConfig(Section):
    """What stands in for the derivative of firing; which kind has which width is in `shortback.surrogates`."""

    kind: SurrogateKind = "triangular"
    """Its shape, over the membrane potential minus the threshold."""
    half_width: Positive | None = None
    """Distance from the threshold at which it ends, for rectangular, triangular and tanh_window."""
    slope: Positive | None = None
    """How steep it is, for arctan, sigmoid, fast_sigmoid and tanh_window."""
    scale: SurrogateScale | Positive = "area"
    """Its height: `area` for an integral of 1, `peak` for 1 at the threshold, or that height itself."""


class NeuronConfig(Section):
    """The neurons, which are the same in every layer; their equations are in docs/method.md."""

    kind: NeuronKind = "lif"
    """Leaky (`lif`), without a leak (`if`), or with a decay that each layer learns (`plif`)."""
    decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Factor on the membrane a step, 1 - 1/tau; `null` for 0.25 (lif) or a start at 0.5 (plif)."""
    threshold: Positive = 1.0
    """Membrane potential at which it fires."""
    reset: Reset = "hard"
    """After a spike: to `reset_to`, down by the threshold (`soft`), or not at all."""
    detach_reset: bool = False
    """Whether the gradient leaves out the path through the reset."""
    surrogate: SurrogateConfig = SurrogateConfig()
    reset_to: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Membrane potential after a hard reset."""
    initial: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Membrane potential before the first step."""
    fires_above: bool = False
    """Whether it fires above the threshold alone, and not at it."""
    decay_input: bool = False
    """Whether the input is multiplied by 1 minus the decay."""
    backend: Backend = "auto"
    """By fused kernels or by the definition, which is slow; `auto` is fused where there is a compiler."""


class ModelConfig(Section):
    """The network, by name; `null` leaves to it what it usually has."""

    name: str
    """One of `shortback.models.list_models()`, such as `resnet18`, `resnet34` and `vgg16`."""
    num_steps: Count = 4
    """Time steps T; of recordings of events, frames."""
    width: Positive | None = None
    """Factor on the channels of every layer; `null` for 1."""
    residual: Residual | None = None
    """Of a ResNet, what a skip is added to: a current (`spiking`), spikes (`sew`), a membrane network, or no skips."""
    stem: Stem | None = None
    """Of a ResNet, its first layers: one 3x3 convolution, a 7x7 and a max pooling, or three 3x3 and an average."""
    norm: Norm | None = None
    """Batch norm over time and batch (`batch`), also scaled to the threshold (`tdbn`) or by step (`tebn`), or none."""
    pool: Pool | None = None
    """Of a VGG: a spike where any of four neurons fired (`max`), or their rate."""
    neuron: NeuronConfig = NeuronConfig()

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        from shortback.models import list_models

        if name not in list_models():
            raise UserError(f"no such model; the nearest are {nearest(name, list_models())}")
        return name

"""The recipe sections on the network and its neurons."""

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
    """The surrogate for the derivative of firing; `shortback.surrogates` has the parameters of each kind."""

    kind: SurrogateKind = "triangular"
    """Shape, over the membrane potential minus the threshold."""
    half_width: Positive | None = None
    """Distance from the threshold at which the surrogate ends, for rectangular, triangular and tanh_window."""
    slope: Positive | None = None
    """Steepness, for arctan, sigmoid, fast_sigmoid and tanh_window."""
    scale: SurrogateScale | Positive = "area"
    """Height: `area` for an integral of 1, `peak` for 1 at the threshold, or the value at the threshold."""


class NeuronConfig(Section):
    """The neurons, the same in every layer; their equations are in docs/method.md."""

    kind: NeuronKind = "lif"
    """Leaky (`lif`), without a leak (`if`), or with a decay that each layer learns (`plif`)."""
    decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Factor on the membrane potential per step, 1 - 1/tau; `null` for 0.25 (lif) or an initial 0.5 (plif)."""
    threshold: Positive = 1.0
    """Membrane potential at which a neuron fires."""
    reset: Reset = "hard"
    """Reset after a spike: to `reset_to` (`hard`), by subtracting the threshold (`soft`), or none."""
    detach_reset: bool = False
    """Whether the gradient ignores the path through the reset."""
    surrogate: SurrogateConfig = SurrogateConfig()
    reset_to: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Membrane potential after a hard reset."""
    initial: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """Membrane potential before the first step."""
    fires_above: bool = False
    """Whether a neuron fires only above the threshold, not at it."""
    decay_input: bool = False
    """Whether the input is multiplied by 1 minus the decay."""
    backend: Backend = "auto"
    """Fused kernels (`compiled`), or the slow definition (`reference`); `auto` is fused where there is a compiler."""


class ModelConfig(Section):
    """The network, by name; where a setting is `null`, the network's own default applies."""

    name: str
    """One of `shortback.models.list_models()`, such as `resnet18`, `resnet34` or `vgg16`."""
    num_steps: Count = 4
    """Number of time steps T, and of frames per recording of events."""
    width: Positive | None = None
    """Factor on the channels of every layer; `null` for 1."""
    residual: Residual | None = None
    """A ResNet's skips: spikes added to currents (`spiking`) or spikes (`sew`), currents (`membrane`), or none."""
    stem: Stem | None = None
    """For a ResNet, the first layers: one 3x3 convolution, a 7x7 and max pooling, or three 3x3 and average pooling."""
    norm: Norm | None = None
    """Batch norm (`batch`; `null` is the same), scaled to the threshold (`tdbn`) or per step (`tebn`), or `none`."""
    pool: Pool | None = None
    """For a VGG, the pooling: a spike where any of four neurons fired (`max`), or their rate (`average`)."""
    firing_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Spikes per step to which initial weights are scaled if neurons fire too rarely or too often; `null` for never."""
    neuron: NeuronConfig = NeuronConfig()

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        from shortback.models import list_models

        if name not in list_models():
            raise UserError(f"no such model; the nearest are {nearest(name, list_models())}")
        return name

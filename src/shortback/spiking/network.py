r"""The wrapper that owns the time steps of a spiking network.

Inside a network every tensor is folded, `[T*N, ...]` time-major, so that all modules except the neurons are ordinary
PyTorch modules. `SpikingNetwork` takes images and returns logits.
"""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor, nn

from shortback.choices import Memory, Readout, check_choice
from shortback.errors import UserError
from shortback.foreign import LIBRARY_NEURONS, is_one_of, refuse_library_neurons, steps_of
from shortback.neurons import SpikingNeuron, TimeModule
from shortback.ops.dynamics import check_count
from shortback.spiking.static_input import find_first_neurons, is_foreign

log = logging.getLogger("shortback")


class SpikingNetwork(nn.Module):
    r"""Wraps a network on folded time, to map images to logits.

    The logits are the mean over time of the outputs of the network, in float32 (float64 for float64 outputs). A
    linear map commutes with the mean, so a linear readout computes $O = W\,\mathrm{mean}_t(s[t]) + b$ and never fires.

    A static image is the same at every step. The layers before the first neurons then run once, and those neurons
    expand their input over time, wherever the data flow of `network` allows it: see `expands_at`.

    Args:
        network: a module `[T*N, C, H, W] -> [T*N, K]` whose neurons are `TimeModule`s. Neurons of another kind must
            store `T` themselves, as `num_steps`, `T`, `time_steps` or `timesteps`; if they come first, images are
            repeated at the input.
        num_steps: number of time steps `T`.
        readout: see the attribute.

    Attributes:
        readout: `"mean"` for logits `[N, K]`, `"steps"` for the outputs of every step, `[T, N, K]`.
        memory: what layers keep for the backward pass, `"fast"`, `"balanced"` or `"small"`: see `shortback.ops.layer`.
            Construction sets it to `"balanced"`, also in the neurons of `network`.

    Raises:
        ValueError: `num_steps` is below 1, or differs from the number that a module with neurons of another library
            stores; the readout is unknown; or only modules of `torch` surround a neuron of another library.
    """

    def __init__(self, network: nn.Module, *, num_steps: int, readout: Readout = "mean") -> None:
        super().__init__()
        refuse_library_neurons(network)
        self.network = network
        self.training = network.training
        self.num_steps = num_steps
        self.readout = readout
        self.memory = "balanced"

    @property
    def num_steps(self) -> int:
        """Number of time steps `T`; setting it also sets every `TimeModule` inside.

        After adding, replacing or removing a `TimeModule`, assign `model.num_steps = model.num_steps`: a new one has
        its own number, and the first neurons may be others.
        """
        return self._num_steps

    @num_steps.setter
    def num_steps(self, value: int) -> None:
        check_count("num_steps", value)
        for name, module in self.network.named_modules():
            if is_foreign(module) and steps_of(module) != value:
                what = (
                    f"num_steps={value}: {name or 'the network'} is a {type(module).__name__}, not a TimeModule, and "
                    f"has a number of its own, {steps_of(module)}; if that counts time steps, set it first"
                )
                if any(is_one_of(part, LIBRARY_NEURONS) for part in module.modules()):
                    raise UserError(what)
                log.warning("%s", what)
        self._num_steps = value
        for module in self.modules():
            if isinstance(module, TimeModule):
                module.num_steps, module.static_input = value, False
        self._first_neurons = self._find_first_neurons()

    def _find_first_neurons(self) -> tuple[str, ...]:
        try:
            return find_first_neurons(self.network)
        except Exception as error:  # a symbolic trace runs the network's own code, which may raise anything
            log.info("%s repeats static images at its input: %s", type(self.network).__name__, error)
            return ()

    @property
    def memory(self) -> Memory:
        """What the layers keep for the backward pass; setting it also sets every neuron inside."""
        return self._memory

    @memory.setter
    def memory(self, value: Memory) -> None:
        check_choice("memory", value, Memory)
        self._memory: Memory = value
        for module in self.modules():
            if isinstance(module, SpikingNeuron):
                module.memory = value

    @property
    def readout(self) -> Readout:
        return self._readout

    @readout.setter
    def readout(self, value: Readout) -> None:
        check_choice("readout", value, Readout)
        self._readout: Readout = value

    @property
    def expands_at(self) -> Literal["input", "neuron"]:
        """Where a static image is expanded over time: at the first neurons, or at the input."""
        return "neuron" if self._first_neurons else "input"

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of images.

        Args:
            x: `[N, C, H, W]`, the same at every step, or a sequence `[T, N, C, H, W]`.

        Returns:
            `[N, K]`, or `[T, N, K]` where `readout` is `"steps"`.

        Raises:
            ValueError: the input has another shape, the output is not one tensor with a row per step and image, or the
                network is in `nn.DataParallel`.
        """
        if x.ndim not in (4, 5):
            raise UserError(f"input of shape {list(x.shape)}: must be [N, C, H, W] or [T, N, C, H, W]")
        static = x.ndim == 4
        if not static and x.shape[0] != self.num_steps:
            raise UserError(
                f"sequence of shape {list(x.shape)} for num_steps={self.num_steps}: must be "
                f"[T, N, C, H, W] with T={self.num_steps}, or set num_steps of the model"
            )
        if self._first_neurons and isinstance(self.network, nn.DataParallel):
            raise UserError("model.network = nn.DataParallel(...): wrap the model itself, nn.DataParallel(model)")
        for name in self._first_neurons:
            # Set without reading the old value, on which torch.compile would guard and recompile.
            self.network.get_submodule(name).static_input = static  # type: ignore[assignment]
        num_samples = x.shape[-4]
        if not static:
            x = x.flatten(0, 1)
        elif not self._first_neurons:
            x = torch.cat([x] * self.num_steps)  # keeps channels-last, as expand().flatten() does not
        output = self.network(x)
        if not isinstance(output, Tensor):
            kind = f"{type(self.network).__name__} returned {type(output).__name__}"
            raise UserError(f"{kind}: must be one tensor of logits, [T*N, K]; turn other outputs off")
        if output.ndim < 2 or output.shape[0] != self.num_steps * num_samples:
            raise UserError(
                f"{type(self.network).__name__} returned {list(output.shape)} for {self.num_steps} steps of "
                f"{num_samples} images: must be [T*N, K], one row per step and image; leave the mean over time to "
                "SpikingNetwork"
            )
        steps = output.unflatten(0, (self.num_steps, -1)).to(torch.promote_types(output.dtype, torch.float32))
        return steps if self.readout == "steps" else steps.mean(0)

    def extra_repr(self) -> str:
        return f"num_steps={self.num_steps}, expands_at={self.expands_at}, readout={self.readout}"

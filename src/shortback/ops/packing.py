"""Spikes packed to one bit each, the form in which they are kept for the backward pass.

The bits of eight steps of one neuron share a byte, so that packing and unpacking work on whole vectors of neurons:
spikes `[T, ...]` become `[ceil(T / 8), ...]` of uint8, in the same memory order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shortback.ops import kernels
from shortback.torch_private import version_of

STEPS_A_BYTE = 8


def pack_fired(fired: Sequence[Tensor]) -> Tensor:
    """Pack the booleans of each step into bytes; for use within a kernel."""
    spikes = [torch.where(s, 1.0, 0.0) for s in fired]
    groups = [spikes[start : start + STEPS_A_BYTE] for start in range(0, len(spikes), STEPS_A_BYTE)]
    # Summed in float32, whose conversion to bytes is vectorised, unlike that of integers.
    return torch.stack([kernels.total([s * 2.0**i for i, s in enumerate(group)]).to(torch.uint8) for group in groups])


def unpack_steps(bits: Tensor, num_steps: int) -> list[Tensor]:
    """Return the zeros and ones of each step in uint8; for use within a kernel."""
    return [(bits[t // STEPS_A_BYTE] >> (t % STEPS_A_BYTE)) & 1 for t in range(num_steps)]


@dataclass(frozen=True)
class PackedSpikes:
    """The packed spikes of a layer, in memory order.

    Attributes:
        bits: `[ceil(T / 8), N, S, C]` of uint8, with `S` pixels.
        num_steps: number of steps `T`.
        version: version of the tensor of spikes when it was packed; an in-place change since then increases it.
    """

    bits: Tensor
    num_steps: int
    version: int = 0

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """Return the spikes, `[T, N, S, C]`."""
        return kernels.run(_unpack, (self.num_steps, dtype), self.bits)

    def average(self, dtype: torch.dtype) -> Tensor:
        """Return the mean of the spikes over steps and pixels, `[N, C]`."""
        return kernels.run(_average, (self.num_steps, dtype), self.bits)


def attach_packed(spikes: Tensor, bits: Tensor, num_steps: int) -> None:
    """Attach packed bits to a tensor of spikes, for the layers that take it; inference tensors cannot carry them."""
    if spikes.is_inference():
        return
    spikes._packed_spikes = PackedSpikes(bits, num_steps, version_of(spikes))  # type: ignore[attr-defined]


def packed_of(tensor: Tensor) -> PackedSpikes | None:
    """Return the packed spikes that a tensor carries; None if it has none or was changed since."""
    packed = getattr(tensor, "_packed_spikes", None)
    return packed if packed is not None and packed.version == version_of(tensor) else None


def _unpack(num_steps: int, dtype: torch.dtype, bits: Tensor) -> Tensor:
    return torch.stack([step.to(dtype) for step in unpack_steps(bits, num_steps)])


def _average(num_steps: int, dtype: torch.dtype, bits: Tensor) -> Tensor:
    # Counts the bits of each byte in pairs, then in fours, then in all eight; vectorised over neurons.
    counts = (bits & 0x55) + ((bits >> 1) & 0x55)
    counts = (counts & 0x33) + ((counts >> 2) & 0x33)
    counts = (counts & 0x0F) + (counts >> 4)
    return counts.to(dtype).sum(0).sum(1) / (num_steps * bits.shape[2])

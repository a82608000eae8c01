"""Spikes at one bit each: what is kept of them for the backward pass.

The bits of eight steps of one neuron share a byte, so that packing and unpacking work on whole vectors of neurons:
spikes `[T, ...]` become `[ceil(T / 8), ...]` of uint8, in the same order in memory.
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
    """The bytes of what fired, by step; within a kernel."""
    spikes = [torch.where(s, 1.0, 0.0) for s in fired]
    groups = [spikes[start : start + STEPS_A_BYTE] for start in range(0, len(spikes), STEPS_A_BYTE)]
    # Summed in float32, which converts to bytes a vector at a time as integers do not.
    return torch.stack([kernels.total([s * 2.0**i for i, s in enumerate(group)]).to(torch.uint8) for group in groups])


def unpack_steps(bits: Tensor, num_steps: int) -> list[Tensor]:
    """Zeros and ones by step, in uint8; within a kernel."""
    return [(bits[t // STEPS_A_BYTE] >> (t % STEPS_A_BYTE)) & 1 for t in range(num_steps)]


@dataclass(frozen=True)
class PackedSpikes:
    """The spikes of a layer in memory's order.

    Attributes:
        bits: `[ceil(T / 8), N, S, C]` of uint8, `S` the pixels of the image.
        num_steps: number of steps `T`.
        version: of the tensor of spikes when it was packed; changed in place since, it is something else.
    """

    bits: Tensor
    num_steps: int
    version: int = 0

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """The spikes again, `[T, N, S, C]`."""
        return kernels.run(_unpack, (self.num_steps, dtype), self.bits)

    def average(self, dtype: torch.dtype) -> Tensor:
        """Their mean over steps and pixels, `[N, C]`."""
        return kernels.run(_average, (self.num_steps, dtype), self.bits)


def attach_packed(spikes: Tensor, bits: Tensor, num_steps: int) -> None:
    """Let a tensor of spikes carry its bits to the layers that take it. One of inference mode cannot."""
    if spikes.is_inference():
        return
    spikes._packed_spikes = PackedSpikes(bits, num_steps, version_of(spikes))  # type: ignore[attr-defined]


def packed_of(tensor: Tensor) -> PackedSpikes | None:
    """The bits that a tensor carries, None if it has none or was changed since."""
    packed = getattr(tensor, "_packed_spikes", None)
    return packed if packed is not None and packed.version == version_of(tensor) else None


def _unpack(num_steps: int, dtype: torch.dtype, bits: Tensor) -> Tensor:
    return torch.stack([step.to(dtype) for step in unpack_steps(bits, num_steps)])


def _average(num_steps: int, dtype: torch.dtype, bits: Tensor) -> Tensor:
    # Bits are counted two, four and eight at a time, all neurons of a vector at once.
    counts = (bits & 0x55) + ((bits >> 1) & 0x55)
    counts = (counts & 0x33) + ((counts >> 2) & 0x33)
    counts = (counts & 0x0F) + (counts >> 4)
    return counts.to(dtype).sum(0).sum(1) / (num_steps * bits.shape[2])

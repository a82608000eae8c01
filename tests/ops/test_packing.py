"""Spikes as bits and back."""

import pytest
import torch

from shortback.ops import packing
from shortback.ops.packing import PackedSpikes


def spikes_and_bits(num_steps, shape=(3, 5, 4)):
    generator = torch.Generator().manual_seed(num_steps)
    spikes = (torch.rand(num_steps, *shape, generator=generator) > 0.6).float()
    return spikes, packing.pack_fired(list(spikes > 0))


@pytest.mark.parametrize("num_steps", [1, 4, 8, 9, 20])
def test_unpacking_gives_the_spikes_back(num_steps):
    spikes, bits = spikes_and_bits(num_steps)
    assert bits.dtype == torch.uint8
    assert bits.shape == ((num_steps + 7) // 8, 3, 5, 4)
    unpacked = PackedSpikes(bits, num_steps).unpack(torch.bfloat16)
    assert unpacked.dtype == torch.bfloat16
    assert torch.equal(unpacked.float(), spikes)


def test_bits_by_hand():
    fired = [torch.tensor([True, False, True]), torch.tensor([True, True, False])]
    assert packing.pack_fired(fired).tolist() == [[3, 2, 1]]


@pytest.mark.parametrize("num_steps", [1, 4, 20])
def test_the_average_is_counted_from_the_bits(num_steps):
    spikes, bits = spikes_and_bits(num_steps)
    average = PackedSpikes(bits, num_steps).average(torch.float64)
    torch.testing.assert_close(average, spikes.double().mean((0, 2)))


def test_a_tensor_carries_its_bits_until_it_is_changed():
    spikes, bits = spikes_and_bits(4)
    assert packing.packed_of(spikes) is None
    packing.attach_packed(spikes, bits, 4)
    assert packing.packed_of(spikes).bits is bits
    assert packing.packed_of(spikes + 0) is None
    spikes.add_(1)
    assert packing.packed_of(spikes) is None

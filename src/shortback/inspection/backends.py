"""Run a network's neurons with another backend for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from shortback.choices import Backend
from shortback.neurons import SpikingNeuron


@contextmanager
def with_backend(backend: Backend | None, model: nn.Module) -> Iterator[None]:
    """Run every neuron of this package with `backend` inside the block; if None, each keeps its own."""
    neurons: list[tuple[SpikingNeuron, Backend]] = [
        (m, m.backend) for m in model.modules() if isinstance(m, SpikingNeuron)
    ]
    for neuron, own in neurons:
        neuron.backend = backend or own
    try:
        yield
    finally:
        for neuron, own in neurons:
            neuron.backend = own

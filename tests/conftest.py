import functools

import pytest
import torch

from shortback.models import create_model
from shortback.neurons import LIF

# Threads that share the little work of a tiny network wait for each other far longer than they compute.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """Run the files with slow tests first: of several processes, none is left with a long one while others wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def make_network():
    """Makes the smallest ResNet there is, the same weights each time, with neurons that need no compiler."""

    def make(name="resnet20", *, num_steps=2, seed=0, backend="reference", **settings):
        torch.manual_seed(seed)
        neuron = functools.partial(LIF, decay=0.25, threshold=0.5, backend=backend)
        return create_model(
            name, num_classes=10, num_steps=num_steps, in_channels=1, neuron=neuron, **{"width": 0.25, **settings}
        )

    return make


@pytest.fixture
def batch():
    """Eight grey images of 12 x 12 and their classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, 1, 12, 12, generator=generator), torch.randint(0, 10, (8,), generator=generator)

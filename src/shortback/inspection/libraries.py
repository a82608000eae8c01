"""What the modules of SpikingJelly, snnTorch, Norse and sinabs are known by, none of which is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn

_NEURONS = {
    "spikingjelly": {"BaseNode"},
    "snntorch": {"SpikingNeuron"},
    "norse": {"SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell"},
    "sinabs": {"StatefulLayer"},
}

# What resets one module, by the attribute that marks a module of the library.
_RESETS = {
    "_memories": "reset",  # SpikingJelly's MemoryModule
    "reset_mem": "reset_mem",  # snnTorch's neurons
    "reset_states": "reset_states",  # sinabs's stateful layers
}


def is_library_neuron(module: nn.Module) -> bool:
    """Whether it is a neuron of one of the libraries, or of a class derived from one."""
    return any(cls.__name__ in _NEURONS.get(cls.__module__.partition(".")[0], ()) for cls in type(module).__mro__)


def whole_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by name, without what the libraries' neurons are made of, such as SpikingJelly's surrogates."""
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module not in inside:
            yield name, module
        if is_library_neuron(module):
            inside.update(part for part in module.modules() if part is not module)


def reset_of(module: nn.Module) -> Callable[[], object] | None:
    """What sets a module of one of the libraries back to its first state; None for all others."""
    return next((getattr(module, reset) for mark, reset in _RESETS.items() if hasattr(module, mark)), None)

"""What neurons of SpikingJelly, snnTorch, Norse and sinabs are known by (none is imported); what resets others."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from shortback.errors import UserError
from shortback.foreign import LIBRARY_NEURONS, is_one_of

# Of neurons what only integrates: its output is its membrane, as of a readout.
_INTEGRATORS = {"norse": {"LI", "LIBoxCell", "LICell"}, "sinabs": {"ExpLeak", "ExpLeakSqueeze"}}
_NO_SPIKES = "NonSpiking"  # begins the name of one in SpikingJelly, and in its examples

# What resets one module, by the attribute that marks a module of the library.
_RESETS = {
    "_memories": "reset",  # SpikingJelly's MemoryModule
    "reset_mem": "reset_mem",  # snnTorch's neurons
    "reset_states": "reset_states",  # sinabs's stateful layers
}


def is_library_neuron(module: nn.Module) -> bool:
    """Whether it is a neuron of one of the libraries, or of a class derived from one."""
    return is_one_of(module, LIBRARY_NEURONS)


def is_integrator(module: nn.Module) -> bool:
    """Whether it is a neuron of one of the libraries that never fires, such as a leaky integrator as a readout."""
    named = any(cls.__name__.startswith(_NO_SPIKES) for cls in type(module).__mro__)
    return is_library_neuron(module) and (named or is_one_of(module, _INTEGRATORS))


def whole_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules by name, without what makes the weight of a layer (`torch.nn.utils.parametrizations`), nor what the
    libraries' neurons are made of, such as SpikingJelly's surrogates.
    """
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module not in inside:
            yield name, module
        if is_library_neuron(module):
            inside.update(part for part in module.modules() if part is not module)
        if is_parametrized(module):
            inside.update(module.get_submodule("parametrizations").modules())


_registered: dict[type[nn.Module], Callable[[Any], object]] = {}


def register_reset(module_class: type[nn.Module], reset: Callable[[Any], object]) -> None:
    """Say how modules of a class, and of classes derived from it, are set back to their first state.

    For neurons that remember their membrane from one call to the next and have no method `reset()`, which is called
    without being registered:

        sb.register_reset(MyNeuron, MyNeuron.clear)
        sb.register_reset(TheirNeuron, lambda neuron: setattr(neuron, "mem", None))

    Args:
        module_class: of the neurons; registered again, the last one holds.
        reset: called with a module, before each batch of `training.fit` and each look of `attach` and `diagnose`.

    Raises:
        ValueError: what is no class of modules, or cannot be called.
    """
    if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
        raise UserError(f"register_reset: {module_class!r} is no class of modules")
    if not callable(reset):
        raise UserError(f"register_reset: {reset!r} cannot be called with a {module_class.__name__}")
    _registered[module_class] = reset


def reset_of(module: nn.Module) -> Callable[[], object] | None:
    """What sets a module back to its first state: as registered, a library's, or its own `reset()`; else None."""
    for cls in type(module).__mro__:
        if cls in _registered:
            return partial(_registered[cls], module)
    for mark, reset in _RESETS.items():
        if hasattr(module, mark):
            return getattr(module, reset)
    own = getattr(module, "reset", None)
    return own if inspect.ismethod(own) and _takes_nothing(own) else None


def _takes_nothing(method: Callable[..., object]) -> bool:
    parameters = inspect.signature(method).parameters.values()
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return all(p.default is not p.empty or p.kind in optional for p in parameters)

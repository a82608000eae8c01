"""Recognise and reset neurons of SpikingJelly, snnTorch, Norse and sinabs (none is imported), and the user's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from shortback.errors import UserError
from shortback.foreign import LIBRARY_NEURONS, is_one_of

# Neurons that only integrate: their output is their membrane, as in a readout.
_INTEGRATORS = {"norse": {"LI", "LIBoxCell", "LICell"}, "sinabs": {"ExpLeak", "ExpLeakSqueeze"}}
_NO_SPIKES = "NonSpiking"  # prefix of the names of such neurons in SpikingJelly and its examples

# The method that resets a module, by the attribute that marks modules of the library.
_RESETS = {
    "_memories": "reset",  # SpikingJelly's MemoryModule
    "reset_mem": "reset_mem",  # snnTorch's neurons
    "reset_states": "reset_states",  # sinabs's stateful layers
}


def is_library_neuron(module: nn.Module) -> bool:
    """Whether a module is a neuron of one of the libraries, or of a class derived from one."""
    return is_one_of(module, LIBRARY_NEURONS)


def is_integrator(module: nn.Module) -> bool:
    """Whether a module is a library neuron that never fires, such as a leaky integrator used as a readout."""
    named = any(cls.__name__.startswith(_NO_SPIKES) for cls in type(module).__mro__)
    return is_library_neuron(module) and (named or is_one_of(module, _INTEGRATORS))


def whole_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Named modules, without the parts of library neurons, such as surrogates, and of `torch.nn.utils.parametrize`."""
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
    """Register how modules of a class, and of classes derived from it, are reset to their initial state.

    For neurons that remember their membrane from one call to the next and have no method `reset()`, which would be
    called without registration:

        sb.register_reset(MyNeuron, MyNeuron.clear)
        sb.register_reset(TheirNeuron, lambda neuron: setattr(neuron, "mem", None))

    Args:
        module_class: the class of the neurons; registering it again replaces its `reset`.
        reset: called with a module before each batch of `training.fit` and each run by `attach` and `diagnose`.

    Raises:
        ValueError: `module_class` is not a class of modules, or `reset` cannot be called.
    """
    if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
        raise UserError(f"register_reset: {module_class!r} is not a class derived from nn.Module")
    if not callable(reset):
        raise UserError(f"register_reset: {reset!r} cannot be called with a {module_class.__name__}")
    _registered[module_class] = reset


def reset_of(module: nn.Module) -> Callable[[], object] | None:
    """The function that resets a module: a registered one, the library's, or its own `reset()`; None without one."""
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

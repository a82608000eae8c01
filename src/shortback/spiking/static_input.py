"""Finds where to expand a static image over time: at the first neurons, if the network's data flow allows it."""

from __future__ import annotations

import inspect
from collections.abc import Collection

from torch import fx, nn

from shortback.copies import shared_copy
from shortback.errors import UserError
from shortback.foreign import steps_of
from shortback.neurons import TimeModule


def find_first_neurons(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the neurons at which a static image can be expanded over time.

    A value is static if it depends on the input but on no neuron. Every path from a static value to a non-static one
    must pass through a neuron, and no neuron may be called with both kinds. A neuron that is not a `TimeModule` takes
    its input for a sequence, so none may get a static value.

    Raises:
        ValueError: the image cannot be expanded at the first neurons; the message says why.
        Exception: any error that a symbolic trace of the network raises.
    """
    foreign = tuple({type(module) for module in network.modules() if is_foreign(module)})
    shell, graph = trace(network, leaves=foreign)
    static: set[fx.Node] = set()
    timed: set[fx.Node] = set()
    is_first: dict[str, bool] = {}
    for node in graph.nodes:
        inputs = set(node.all_input_nodes)
        if node.op == "placeholder":
            static.add(node)
        elif node.op == "call_module" and isinstance(shell.get_submodule(node.target), TimeModule):
            first = inputs <= static
            if is_first.setdefault(node.target, first) != first:
                raise UserError(f"neuron {node.target} is called both before and after other neurons")
            timed.add(node)
        elif node.op == "call_module" and isinstance(shell.get_submodule(node.target), foreign):
            if not inputs <= timed:
                raise UserError(f"{node.target} is not a TimeModule, stores a number of time steps, and comes first")
            timed.add(node)
        elif inputs & timed:
            if inputs & static:
                raise UserError(f"{node} joins a value from before the first neurons with one from after them")
            timed.add(node)
        elif inputs & static:
            static.add(node)
        if node.op == "output" and node not in timed:
            raise UserError("its output comes from no neuron")
    return tuple(name for name, first in is_first.items() if first)


def is_foreign(module: nn.Module) -> bool:
    """Return whether a module is a neuron from elsewhere, recognised by the number of time steps that it stores."""
    holds = any(isinstance(child, TimeModule) for child in module.modules())
    return steps_of(module) is not None and not holds and not type(module).__module__.startswith("torch.")


def trace(
    network: nn.Module,
    *,
    leaves: tuple[type[nn.Module], ...] = (),
    names: Collection[str] = (),
    keeps_lines: bool = False,
) -> tuple[nn.Module, fx.Graph]:
    """Trace a network on folded time down to `torch.nn` modules, neurons, `leaves` and the modules in `names`.

    With `keeps_lines`, the nodes record the lines of code that they come from.

    Returns:
        The `shared_copy` that was traced, and its graph.

    Raises:
        Exception: any error that a symbolic trace of the network raises.
    """
    shell = shared_copy(network)
    _, *others = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in others if p.default is not p.empty}
    tracer = _Tracer(leaves, names)
    tracer.record_stack_traces = keeps_lines
    return shell, tracer.trace(shell, defaults)


class _Tracer(fx.Tracer):
    """A tracer that changes no buffers, such as the batch counter of a norm."""

    proxy_buffer_attributes = True

    def __init__(self, leaves: tuple[type[nn.Module], ...], names: Collection[str]) -> None:
        super().__init__()
        self.leaves, self.names = (TimeModule, *leaves), names

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, self.leaves) or module_qualified_name in self.names:
            return True
        holds_time = any(isinstance(child, TimeModule) for child in m.modules())
        return not holds_time and super().is_leaf_module(m, module_qualified_name)

"""Where a static image is expanded over time: at the first neurons, if the data flow of the network allows it."""

from __future__ import annotations

import copy
import inspect

from torch import fx, nn

from shortback.errors import UserError
from shortback.neurons import TimeModule


def find_first_neurons(network: nn.Module) -> tuple[str, ...]:
    """Names of the neurons at which a static image can be expanded over time.

    A value is static where it depends on the input but on no neuron. Every way from a static value to one
    that is not must lead into a neuron, and no neuron may be called with both.

    Raises:
        ValueError: it cannot be expanded there, and why.
        Exception: whatever a symbolic trace of the network raises.
    """
    # The copy shares the weights, and takes what forward assigns to attributes.
    weights = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    shell = copy.deepcopy(network, weights)
    _, *others = inspect.signature(network.forward).parameters.values()
    defaults = {p.name: p.default for p in others if p.default is not p.empty}
    graph = _Tracer().trace(shell, defaults)

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
        elif inputs & timed:
            if inputs & static:
                raise UserError(f"{node} joins a value from before the first neurons with one from after them")
            timed.add(node)
        elif inputs & static:
            static.add(node)
        if node.op == "output" and node not in timed:
            raise UserError("its output comes from no neuron")
    return tuple(name for name, first in is_first.items() if first)


class _Tracer(fx.Tracer):
    """Traces down to `torch.nn` modules and neurons, and changes no buffer, such as a norm's counter."""

    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, TimeModule):
            return True
        holds_time = any(isinstance(child, TimeModule) for child in m.modules())
        return not holds_time and super().is_leaf_module(m, module_qualified_name)

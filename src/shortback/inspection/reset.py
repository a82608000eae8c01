"""Reset what a network of another library remembers from one batch to the next.

The libraries' own resets each miss something: snnTorch's `utils.reset` visits only direct children, sinabs's
`reset_states` skips the network itself, and SpikingJelly's `reset_net` uses a list it made at its first call. Here
every module is visited, so one call serves all libraries, and networks that mix them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortback.errors import UserError
from shortback.inspection.libraries import is_library_neuron, reset_of
from shortback.torch_private import version_of


def reset_states(model: nn.Module) -> int:
    """Reset every neuron that keeps state to its initial state; call this before each batch.

    These are the neurons of SpikingJelly, snnTorch and sinabs, every module with a method `reset()` that needs no
    argument, and modules of classes registered with `register_reset`.

    Networks of this package and of Norse keep no state and need no reset. Networks that reset themselves in their
    forward pass may be reset here too.

    Returns:
        The number of modules that were reset.

    Raises:
        ValueError: a reset changed parameters. If the first module of a class did, they are restored.
    """
    resets = [(module, reset) for module in model.modules() if (reset := reset_of(module)) is not None]
    before = _versions(model) if resets else {}
    for module, reset in resets:
        if type(module) in _harmless:
            reset()
        elif _changes_parameters(module, reset):
            raise _changed_parameters(type(module))
        else:
            _harmless.add(type(module))
    if resets and _versions(model) != before:
        raise _changed_parameters(type(model))
    return len(resets)


_harmless: WeakSet[type[nn.Module]] = WeakSet()  # classes whose reset left the parameters unchanged


def _versions(model: nn.Module) -> dict[nn.Parameter, int]:
    return {p: 0 if is_lazy(p) or p.is_inference() else version_of(p) for p in model.parameters()}


def _changes_parameters(module: nn.Module, reset: Callable[[], object]) -> bool:
    """Reset a module; returns whether that replaced parameters or changed their values, which are then restored."""
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for part in module.modules():
        tables += [(part._modules, dict(part._modules)), (part._parameters, dict(part._parameters))]
    before = list(module.parameters())
    values = [(p, p.detach().clone()) for p in before if not is_lazy(p)]
    reset()
    has_others = [id(p) for p in module.parameters()] != [id(p) for p in before]
    changed = [(p, value) for p, value in values if not _same(p.detach(), value)]
    for table, held in tables if has_others else ():
        table.clear()
        table.update(held)
    for p, value in changed:
        p.data.copy_(value)
    return has_others or bool(changed)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _changed_parameters(of: type[nn.Module]) -> UserError:
    return UserError(
        f"reset() of {of.__name__} changed parameters, which would undo training before every batch: rename the "
        "method, or register a function that resets only the states with sb.register_reset"
    )


REMEMBERS = (
    "the network remembers something from one batch to the next, or begins with a random membrane. Give your own "
    "neurons a method reset(), or register how other neurons are reset: sb.register_reset(TheirClass, function)"
)


@contextmanager
def explaining_stale_graph() -> Iterator[None]:
    """Replace PyTorch's error about a second backward pass through a graph by one that explains the cause.

    Raises:
        ValueError: the graph leads back into an earlier batch.
    """
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise UserError(f"the gradient leads back into the previous batch: {REMEMBERS}") from error


def without_states(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without what neurons remember: sinabs keeps it in buffers with the size of the last batch."""
    states = {
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if is_library_neuron(module) and reset_of(module) is not None
        for buffer, _ in module.named_buffers(recurse=False)
    }
    return {name: value for name, value in model.state_dict().items() if name not in states}

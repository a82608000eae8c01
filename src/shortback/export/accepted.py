"""Which networks exports take, and what to do with others."""

from __future__ import annotations

from torch import nn

from shortback.errors import UserError
from shortback.inspection.trunk import Branched
from shortback.spiking import SpikingNetwork

_MAKE_ONE = (
    "a network of another library runs and is exported by its library's own means; spikify(ann, num_steps=T) makes a "
    "SpikingNetwork of an ANN"
)


def check_network(net: nn.Module, what: str) -> None:
    """See that it is a `SpikingNetwork` by itself.

    Args:
        what: takes it, such as "stream()".

    Raises:
        ValueError: it is not; what it is, and what to do.
    """
    if isinstance(net, SpikingNetwork):
        return
    do = _MAKE_ONE
    if isinstance(net, Branched) and isinstance(net.model, SpikingNetwork):
        do = f"give {'net.model' if _is_stripped(net) else 'strip(net)'}, which has no branches"
    raise UserError(
        f"{what} takes a SpikingNetwork, of create_model() or spikify(), and this is {described(net)}: {do}"
    )


def check_branched(net: nn.Module, what: str) -> None:
    """See that it is a `SpikingNetwork` with branches on it.

    Raises:
        ValueError: it is not; what it is, and what to do.
    """
    found, do = f"this is {described(net)}", _MAKE_ONE
    if isinstance(net, SpikingNetwork):
        found, do = f"{found} without", "give what attach(model, at=...) returns"
    elif isinstance(net, Branched) and _is_stripped(net):
        found, do = "this one is stripped", "attach branches anew, and load the weights of their heads"
    elif isinstance(net, Branched) and isinstance(net.model, SpikingNetwork):
        return
    raise UserError(f"{what} takes a SpikingNetwork, of create_model() or spikify(), with branches, and {found}: {do}")


def _is_stripped(net: nn.Module) -> bool:
    return bool(getattr(net, "is_stripped", False))


def described(net: nn.Module) -> str:
    """What a network is, with what is within its branches."""
    inner = f" with a {type(net.model).__name__} within" if isinstance(net, Branched) else ""
    return f"{type(net).__name__}{inner}"

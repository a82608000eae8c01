"""Checks that a network can be exported, with error messages that say what to pass instead."""

from __future__ import annotations

from torch import nn

from shortback.errors import UserError
from shortback.inspection.trunk import Branched
from shortback.spiking import SpikingNetwork

_MAKE_ONE = (
    "run and export a network of another library with that library's own tools; spikify(ann, num_steps=T) turns an "
    "ANN into a SpikingNetwork"
)


def check_network(net: nn.Module, what: str) -> None:
    """Check that a network is a `SpikingNetwork` without branches.

    Args:
        what: what takes the network, such as "stream()"; the subject of the error message.

    Raises:
        ValueError: `net` is something else; the message says what it is and what to pass instead.
    """
    if isinstance(net, SpikingNetwork):
        return
    do = _MAKE_ONE
    if isinstance(net, Branched) and isinstance(net.model, SpikingNetwork):
        do = f"give {'net.model' if _is_stripped(net) else 'strip(net)'}, which has no branches"
    raise UserError(
        f"{what} takes a SpikingNetwork, from create_model() or spikify(), and this is {described(net)}: {do}"
    )


def check_branched(net: nn.Module, what: str) -> None:
    """Check that a network is a `SpikingNetwork` with branches attached.

    Raises:
        ValueError: `net` is something else; the message says what it is and what to pass instead.
    """
    found, do = f"this is {described(net)}", _MAKE_ONE
    if isinstance(net, SpikingNetwork):
        found, do = f"{found} without branches", "give what attach(model, at=...) returns"
    elif isinstance(net, Branched) and _is_stripped(net):
        found, do = "this one is stripped", "attach branches again, and load the weights of their heads"
    elif isinstance(net, Branched) and isinstance(net.model, SpikingNetwork):
        return
    raise UserError(
        f"{what} takes a SpikingNetwork, from create_model() or spikify(), with branches, and {found}: {do}"
    )


def refuse_batch_statistics(network: nn.Module, what: str) -> None:
    """Refuse norms that use the statistics of their batch in `eval()` too, where a batch has not all steps or images.

    Raises:
        ValueError: the network has such a norm; the message names it.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
            raise UserError(
                f"{what}: {name} normalises by the statistics of its batch, which would be others here: train with "
                "track_running_stats=True"
            )


def _is_stripped(net: nn.Module) -> bool:
    return bool(getattr(net, "is_stripped", False))


def described(net: nn.Module) -> str:
    """The type of a network, for messages; of a network with branches also the type of the network inside."""
    inner = f" with a {type(net.model).__name__} within" if isinstance(net, Branched) else ""
    return f"{type(net).__name__}{inner}"

"""Remove the branches again."""

from __future__ import annotations

from torch import nn

from shortback.errors import UserError
from shortback.shortcuts.network import ShortcutNetwork


def strip(network: ShortcutNetwork) -> nn.Module:
    """Remove all branches and return the network that was given to `attach`, the very same object.

    It keeps its trained parameters; its keys, their order and its logits are as if it had never had branches. The
    `ShortcutNetwork` itself can no longer be used.

    Raises:
        ValueError: `network` was not returned by `attach`, or was stripped before.
    """
    if not isinstance(network, ShortcutNetwork):
        raise UserError(
            f"strip() takes a network returned by attach(), not {type(network).__name__}: unwrap it first "
            "(`net._orig_mod` after torch.compile, `net.module` under DDP)"
        )
    if network.is_stripped:
        raise UserError("the network was stripped before")
    network.remove_taps()
    return network.model

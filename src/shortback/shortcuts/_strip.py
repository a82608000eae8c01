"""Take the branches off again."""

from __future__ import annotations

from torch import nn

from shortback.errors import UserError
from shortback.shortcuts.network import ShortcutNetwork


def strip(network: ShortcutNetwork) -> nn.Module:
    """The network that was given to `attach`, the very object, without a trace of its branches.

    Its parameters are those that were trained; its keys, their order and its logits are as if it had
    never had branches. What `attach` returned is of no more use.

    Raises:
        ValueError: something that `attach` did not return, or that was stripped before.
    """
    if not isinstance(network, ShortcutNetwork):
        raise UserError(
            f"strip() takes what attach() returned, not {type(network).__name__}: unwrap it first "
            "(a compiled network has it as `_orig_mod`, one under DDP as `module`)"
        )
    if network.is_stripped:
        raise UserError("the network was stripped before")
    network.remove_taps()
    return network.model

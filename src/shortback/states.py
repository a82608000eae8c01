"""Reset what a network of another library remembers from one batch to the next.

The libraries' own resets each miss something: snnTorch's `utils.reset` visits the direct children alone, sinabs's
`reset_states` passes the network itself over, and SpikingJelly's `reset_net` goes by a list it made at its first call.
Here every module is asked, so one call is right for all of them, and for networks that mix them.
"""

from __future__ import annotations

from torch import nn

from shortback.libraries import reset_module


def reset_states(model: nn.Module) -> int:
    """Set every neuron of SpikingJelly, snnTorch and sinabs back to its first state; call it before each batch.

    Networks of this package, and of Norse, keep no state and need no reset; those that reset themselves in their
    forward may be reset here too.

    Returns:
        How many modules were reset.
    """
    return sum(reset_module(module) for module in model.modules())

"""Reset what a network of another library remembers from one batch to the next.

The libraries' own resets each miss something: snnTorch's `utils.reset` visits the direct children alone, sinabs's
`reset_states` passes the network itself over, and SpikingJelly's `reset_net` goes by a list it made at its first call.
Here every module is asked, so one call is right for all of them, and for networks that mix them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.libraries import is_library_neuron, reset_of
from shortback.torch_private import version_of


def reset_states(model: nn.Module) -> int:
    """Set every neuron that remembers back to its first state; call it before each batch.

    These are the neurons of SpikingJelly, snnTorch and sinabs, every module with a method `reset()` that needs no
    argument, and those of a class that `register_reset` was told of.

    Networks of this package, and of Norse, keep no state and need no reset; those that reset themselves in their
    forward may be reset here too.

    Returns:
        How many modules were reset.

    Raises:
        ValueError: a reset changed parameters.
    """
    resets = [reset for module in model.modules() if (reset := reset_of(module)) is not None]
    weights = [p for p in model.parameters() if not p.is_inference()] if resets else []
    versions = [version_of(p) for p in weights]
    for reset in resets:
        reset()
    if versions != [version_of(p) for p in weights]:
        raise UserError(
            f"reset() of a module in {type(model).__name__} changed parameters, which would undo training before every "
            "batch: give the method another name, or register what resets states alone with sb.register_reset"
        )
    return len(resets)


REMEMBERS = (
    "it remembers something from one batch to the next, or begins with a random membrane. Give neurons of your own a "
    "method reset(), or say how theirs are reset: sb.register_reset(TheirClass, function)"
)


@contextmanager
def saying_what_remembers() -> Iterator[None]:
    """In the place of PyTorch's error about a graph that was gone backward before, one that says how it comes about.

    Raises:
        ValueError: the graph goes back into an earlier batch.
    """
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise UserError(f"the gradient leads back into the batch before: {REMEMBERS}") from error


def without_states(model: nn.Module) -> dict[str, Tensor]:
    """The state dict without what neurons remember: sinabs's keep it in buffers as long as the last batch."""
    states = {
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if is_library_neuron(module) and reset_of(module) is not None
        for buffer, _ in module.named_buffers(recurse=False)
    }
    return {name: value for name, value in model.state_dict().items() if name not in states}

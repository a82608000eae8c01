"""Neurons of other libraries and of users, recognised by their classes and by the time steps that they store."""

from __future__ import annotations

import logging

from torch import nn

from shortback.errors import UserError

log = logging.getLogger("shortback")

LIBRARY_NEURONS = {
    "spikingjelly": {"BaseNode"},
    "snntorch": {"SpikingNeuron"},
    "norse": {"SNN", "SNNCell", "SNNRecurrent", "SNNRecurrentCell"},
    "sinabs": {"StatefulLayer"},
}
"""Names of the base classes of each library's neurons; no library is imported."""


def is_one_of(module: nn.Module, classes: dict[str, set[str]]) -> bool:
    """Return whether a module's class, or one of its bases, is listed in a table of class names by library."""
    return any(cls.__name__ in classes.get(cls.__module__.partition(".")[0], ()) for cls in type(module).__mro__)


def steps_of(module: nn.Module) -> int | None:
    """Return the number of time steps that a module or its class stores under one of the usual names, else None."""
    kept = (vars(module).get(name, getattr(type(module), name, None)) for name in _STEPS)
    return next((number for number in kept if isinstance(number, int) and not isinstance(number, bool)), None)


_STEPS = ("num_steps", "T", "time_steps", "timesteps")
_OURS = {"shortback": {"SpikingNeuron"}}


def refuse_library_neurons(module: nn.Module, inside: tuple[nn.Module, ...] = ()) -> None:
    """Raise `UserError` for a neuron of another library that no user-written module surrounds.

    On folded time such a neuron would take the steps of a sequence for a batch, and keep its membrane for the next
    sequence. A user's module around it (`inside`) may know how to call it; if none of these stores a number of time
    steps, log a warning instead.
    """
    if is_one_of(module, LIBRARY_NEURONS):
        packages = [cls.__module__.partition(".")[0] for cls in type(module).__mro__]
        library = next(package for package in packages if package in LIBRARY_NEURONS)
        what = (
            f"{type(module).__name__} of {library} does not know folded time, [T*N, ...]: take sb.LIF(num_steps, "
            "decay=..., threshold=...) or another neuron of shortback, or a module of your own with num_steps, whose "
            "forward calls x.unflatten(0, (self.num_steps, -1)), resets and steps the neuron, calls .flatten(0, 1)"
        )
        own = [outer for outer in inside if not type(outer).__module__.startswith("torch.")]
        if not own:
            raise UserError(what)
        parts = (part for outer in own for part in outer.modules() if not is_one_of(part, _OURS))
        if all(steps_of(part) is None for part in parts):
            log.warning("%s", what)
        return
    for child in module.children():
        refuse_library_neurons(child, (*inside, module))

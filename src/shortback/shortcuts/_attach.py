"""Attach shortcut branches to a network, after checking the user's arguments."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from typing import Any, Literal

from torch import Tensor, nn

from shortback.choices import Layout, Reduction, check_choice
from shortback.errors import UserError
from shortback.inspection.calls import Calls
from shortback.inspection.mistakes import check_batch, explaining
from shortback.shortcuts.auto import choose_places
from shortback.shortcuts.heads import HeadFactory, linear_head
from shortback.shortcuts.network import ShortcutNetwork, Tap, drop_idle_taps
from shortback.shortcuts.places import find_places, warn_of_currents
from shortback.shortcuts.tapping import tap
from shortback.spiking import SpikingNetwork
from shortback.torch_private import hooks_of, is_compiled

log = logging.getLogger("shortback")


def attach(
    model: nn.Module,
    *,
    at: str | Iterable[str] = "blocks",
    sample: Tensor,
    head: HeadFactory = linear_head,
    layout: Layout | Literal["auto"] = "auto",
    reduce: Reduction | None = None,
    num_steps: int | None = None,
    features: int | None = None,
    output: int | str | None = None,
) -> ShortcutNetwork:
    """Give a network shortcut branches from intermediate modules straight to the loss (Guo et al., NeurIPS 2024).

    Dry runs on `sample` find the network's time layout and the widths of the heads. They run in `eval()` without
    gradients (`at="auto"` also measures gradients, in training mode) and leave weights, statistics, states, modes and
    the random state unchanged. The branches live outside the network: its keys and parameters stay the same, and
    `strip` removes every trace.

    Args:
        model: any network that returns `[N, K]`, or one such output for each step (see `reduce`). It is not copied.
        at: where branches go: `"blocks"` or `"stages"` (after each but the last), names of modules, or `"auto"`: a few
            blocks that bring every layer's gradient inside the band, see `shortback.shortcuts.auto`.
        sample: an input batch, on the device of the model. Two samples are enough; `"auto"` measures gradients on it
            and needs about 16 real ones.
        head: called as `head(in_features, num_classes)` for each branch; returns its head.
        layout: how time runs through the network (`shortback.inspection.layout`), the same at every place; `"auto"`
            detects it for each place, see `shortback.inspection.detect`.
        reduce: how an output for each step (`[T, N, K]`, `[N, T, K]` or a list over steps) becomes `[N, K]`; None
            keeps it as `[T, N, K]`. If the network returns a tuple, such as (spikes, membranes), its first item counts.
        num_steps: `T`, for a network whose input and output are folded in the same way as inside, `[T*N, ...]` or
            `[N*T, ...]`; leave it out for a network that folds and unfolds by itself.
        features: the feature axis of the tapped outputs, e.g. 2 or -1 for tokens `[N, L, C]`; None finds it by size,
            and by a dry run where several axes have that size.
        output: which tensor to tap where a module returns several, by index in the tuple or key in the dict; None
            takes the spikes if the dry runs identify them, else the first.

    Raises:
        ValueError: a place does not exist, is not called once (or once a step), or does not return a tensor of the
            layout; the layout cannot be found; the network is compiled, wrapped, or already has branches.
    """
    check_choice("layout", layout, Layout, or_else=("auto",))
    if reduce is not None:
        check_choice("reduce", reduce, Reduction)
    _refuse_unsuitable(model)
    check_batch(sample)
    settings: dict[str, Any] = {
        "layout": layout,
        "reduce": reduce,
        "num_steps": num_steps,
        "features": features,
        "output": output,
    }
    at = _names(at)
    run = functools.cache(lambda: Calls.of(model, sample))
    with explaining(model, sample):
        if isinstance(head, nn.Module):
            raise UserError(
                "head: give a function that makes a head, e.g. lambda features, classes: torch.nn.Linear(features, "
                "classes)"
            )
        chosen = choose_places(model, sample, **settings) if at == "auto" else at
        places = find_places(model, chosen, run=run)
        net = tap(model, places, sample=sample, head=head, run=run, **settings)
        if output is None and not isinstance(model, SpikingNetwork):  # tap() has called run(), so the result is cached
            if at not in ("auto", "blocks", "stages"):
                warn_of_currents(model, places, run())
            if run().has_silent_output:
                log.warning(
                    "the output of %s is spikes, and 0 for all samples, so the main loss learns little or nothing: use "
                    "a readout that does not fire, or a lower threshold",
                    type(model).__name__,
                )
        return net


def _names(at: object) -> str | list[str]:
    """Check the argument `at`: a string is returned as it is, any other iterable of names as a list."""
    if isinstance(at, str):
        return at
    names: list[Any] = list(at) if isinstance(at, Iterable) else [at]
    if any(isinstance(name, nn.Module) for name in (at, *names)):
        raise UserError("at: give the names of modules, as in model.named_modules(), not the modules themselves")
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"at={at!r}: write 'blocks', 'stages' or 'auto', or names of modules, ['layer1', 'layer2']")
    return names


def _refuse_unsuitable(model: object) -> None:
    if not isinstance(model, nn.Module):
        raise UserError(f"the network is a {type(model).__name__}: attach() takes an nn.Module")
    if isinstance(model, ShortcutNetwork):
        raise UserError("the network has branches already: strip() it first")
    if isinstance(model, nn.DataParallel):
        raise UserError("nn.DataParallel runs copies that share their taps: use DistributedDataParallel instead")
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise UserError("attach to the network itself, net = attach(model.module, ...), and wrap the result")
    drop_idle_taps(model)
    if any(isinstance(hook, Tap) for module in model.modules() for hook in hooks_of(module)):
        raise UserError(
            "the network has branches already: strip() the network that attach() returned, or build a new one"
        )
    for name, module in model.named_modules():
        if is_compiled(module):
            where = f"its module {name!r}" if name else "the network"
            raise UserError(f"{where} is compiled, so branches would not run: attach first, then torch.compile")

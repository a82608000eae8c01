"""Losses with parameters or buffers of their own, which belong to the state of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from shortback.losses import ShortcutLoss


def states_of_loss(loss: ShortcutLoss) -> list[dict[str, Any]]:
    """The state dicts of the losses of the main output and of the branches; empty for a loss without a state."""
    return [part.state_dict() if isinstance(part, nn.Module) else {} for part in (loss.main, loss.branch)]


def load_states_of_loss(loss: ShortcutLoss, states: Sequence[dict[str, Any]]) -> None:
    """Restore what `states_of_loss` returned; checkpoints of earlier versions have none."""
    for part, state in zip((loss.main, loss.branch), states, strict=False):
        if isinstance(part, nn.Module) and state:
            part.load_state_dict(state)

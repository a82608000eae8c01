"""Save and load the branches of a finished run, in a file beside the network's, which does not need them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from shortback.errors import UserError
from shortback.shortcuts import ShortcutNetwork, attach
from shortback.spiking import SpikingNetwork
from shortback.training.checkpoint import save_weights


def save_branches(net: ShortcutNetwork, file: Path) -> None:
    """Write the heads of the branches and the places where they belong."""
    save_weights(file, net.heads.state_dict(), metadata={"places": json.dumps(net.places)})


def load_branches(model: SpikingNetwork, file: Path, *, batch_shape: tuple[int, ...]) -> ShortcutNetwork:
    """Attach the branches from a file to the network that they were trained with; `strip` removes them again.

    Args:
        model: the network, on the CPU.
        batch_shape: shape of a batch of two images, for the dry run of `attach`.

    Raises:
        ValueError: the file was not written by `save_branches`, or belongs to another network.
    """
    try:
        with safe_open(file, "pt") as opened:
            places = json.loads((opened.metadata() or {})["places"])
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
    except Exception as error:  # a broken file raises errors of many kinds
        raise UserError(f"{file}: no branches can be read from it ({error})") from error
    net = attach(model, at=places, sample=torch.zeros(batch_shape))
    try:
        net.heads.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{file}: the branches do not fit this network: {error}") from error
    return net

"""Load weights with branches into a network without them, and vice versa, and report what is left out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.reset import without_states
from shortback.inspection.trunk import Branched, trunk_of
from shortback.spiking import SpikingNetwork
from shortback.torch_private import UNCOMPILED

log = logging.getLogger("shortback")

NUM_NAMED = 5


def load_weights(net: nn.Module, weights: Mapping[str, Tensor] | str | Path) -> list[str]:
    """Load weights into a network, even if only one of the two has branches or the `SpikingNetwork` wrapper.

    The weights of the network itself must be complete and have the right shapes. Heads are loaded if both sides have
    the same number of heads with the same shapes; otherwise the heads of the network stay as they are.

    Args:
        net: a network with or without branches.
        weights: a state dict, or a file with one (`.safetensors` or written by `torch.save`); may come from
            `DistributedDataParallel` or a compiled network.

    Returns:
        The names of the weights that were left out; they are also logged.

    Raises:
        ValueError: the file cannot be read, or names or shapes differ from those of the network; these are listed.
    """
    given, own = _read(weights), trunk_of(net)
    own_weights = _weights_of(own)
    states = own.state_dict().keys() - own_weights.keys()
    names = {_as_before_compile(name): name for name in own_weights}
    trunk, heads = {}, {}
    for named in (given, _uncompiled(given), _unwrapped(given)):  # as given first: children may be named like wrappers
        trunk, heads = _split(named, net)
        trunk = {names.get(name, name): value for name, value in trunk.items() if name not in states}
        if set(trunk) == set(names.values()):
            break
    _check(own, trunk)
    own.load_state_dict(trunk, strict=False)  # as checked
    fit = isinstance(net, Branched) and _load_heads(net, heads)
    left_out = [] if fit else sorted(f"heads.{name}" for name in heads)
    if left_out:
        log.warning("left out of the weights: %s", _some(left_out))
    return left_out


def with_branches(weights: Mapping[str, Tensor], net: Branched) -> dict[str, Tensor] | None:
    """Rename the weights of a network without branches to load into a `ShortcutNetwork`, and add its current heads.

    Returns:
        None if `weights` are not exactly those of the network without branches.
    """
    if set(weights) != set(net.model.state_dict()):
        return None
    heads = {f"heads.{name}": value for name, value in net.heads.state_dict().items()}
    return {**{f"model.{name}": value for name, value in weights.items()}, **heads}


def _load_heads(net: Branched, heads: dict[str, Tensor]) -> bool:
    """Load the heads if their number and shapes are those of the network; returns whether they are."""
    own = net.heads.state_dict()
    if {name: value.shape for name, value in heads.items()} != {name: value.shape for name, value in own.items()}:
        log.warning("the heads of %d branches were not loaded: the weights have none, or others", len(net.places))
        return False
    net.heads.load_state_dict(heads)
    return True


def _read(weights: Mapping[str, Tensor] | str | Path) -> dict[str, Any]:
    if isinstance(weights, Mapping):
        return dict(weights)
    path = Path(weights)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file may raise almost anything
        raise UserError(f"{path}: no weights can be read from this file ({error})") from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path}: holds {type(loaded).__name__}, not a state dict of tensors by name")
    return dict(loaded)


def _unwrapped(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo what `torch.compile` inserts into names, and what `DistributedDataParallel` or `AveragedModel` prepends."""
    weights = _uncompiled({name: value for name, value in weights.items() if name != "n_averaged"})
    if all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _uncompiled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {_as_before_compile(name): value for name, value in weights.items()}


def _as_before_compile(name: str) -> str:
    return name.replace(f"{UNCOMPILED}.", "")


def _split(given: dict[str, Tensor], net: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split weights into the network's, under its own names, and the heads'."""
    own = trunk_of(net)
    names = set(_weights_of(own))
    if not names <= set(given):
        names = set(map(_as_before_compile, names))
    heads: dict[str, Tensor] = {}
    if not names <= set(given) and any(name.startswith("model.") for name in given):
        heads = {name.removeprefix("heads."): value for name, value in given.items() if name.startswith("heads.")}
        given = {name.removeprefix("model."): value for name, value in given.items() if name.startswith("model.")}
    if not names <= set(given):  # only one side has the wrapper of time steps, SpikingNetwork
        if isinstance(own, SpikingNetwork):
            with_wrapper = {f"network.{name}": value for name, value in given.items()}
            given = with_wrapper if names <= set(with_wrapper) else given
        else:
            without = {name.removeprefix("network."): value for name, value in given.items()}
            given = without if names <= set(without) else given
    return given, heads


def _weights_of(own: nn.Module) -> dict[str, Tensor]:
    """The state dict without what neurons remember, and without what `get_extra_state` returned."""
    return {name: value for name, value in without_states(own).items() if isinstance(value, Tensor)}


def _check(own: nn.Module, given: Mapping[str, Tensor]) -> None:
    lines = weight_differences(given, _weights_of(own), where="state dict")
    if lines:
        raise UserError("\n  ".join([f"the weights are not those of this {type(own).__name__}:", *lines]))


def weight_differences(given: Mapping[str, Tensor], own: Mapping[str, Tensor], *, where: str) -> list[str]:
    """List how weights differ from a network's: names that either side lacks and different shapes, one per line.

    Args:
        given: the weights to load.
        own: the weights of the network.
        where: what `given` is called in these lines, such as "state dict".
    """
    given, own = ({n: v for n, v in each.items() if isinstance(v, Tensor)} for each in (given, own))
    lines = [
        _listed(f"weights that the {place} lacks", [name for name in one if name not in other])
        for place, one, other in (("network", given, own), (where, own, given))
    ]
    shapes = [
        f"{name} {list(given[name].shape)} in the {where}, {list(value.shape)} now"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    return [line for line in (*lines, _listed("shapes", shapes)) if line]


def _listed(what: str, names: list[str]) -> str:
    return f"{what}: {_some(names)}" if names else ""


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more

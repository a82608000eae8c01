"""The registry of models, by the names that recipes and the command line use."""

from __future__ import annotations

import fnmatch
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, get_args, get_type_hints

from torch import nn

from shortback.choices import nearest
from shortback.errors import UserError
from shortback.models.layers import ModelSettings
from shortback.neurons import NeuronFactory
from shortback.ops.dynamics import check_count
from shortback.spiking import SpikingNetwork

_Builder = TypeVar("_Builder", bound=Callable[..., nn.Module])
_builders: dict[str, Callable[..., nn.Module]] = {}


def register_model(builder: _Builder) -> _Builder:
    """Decorator that registers a function as a model, which `create_model` makes by its name.

    The function takes the settings of `ModelSettings` and its own, all by keyword, and returns a module
    on folded time, `[T*N, C, H, W] -> [T*N, K]`, with methods `blocks()` and `stages()` that return the names of its
    submodules in order.

    Raises:
        ValueError: the name is taken, or the annotation of `**settings` does not list the settings.
    """
    name = builder.__name__
    if name in _builders:
        raise UserError(f"a model {name!r} is registered already: give the function another name")
    _own_settings(builder)
    _builders[name] = builder
    return builder


def create_model(
    name: str,
    *,
    num_classes: int = 10,
    num_steps: int = 4,
    in_channels: int = 3,
    neuron: NeuronFactory | None = None,
    **settings: Any,
) -> SpikingNetwork:
    """Create a spiking network by name, from `[N, C, H, W]` or `[T, N, C, H, W]` to logits `[N, num_classes]`.

    Args:
        name: one of `list_models()`.
        num_classes: number of logits.
        num_steps: number of time steps `T`.
        in_channels: channels of the image.
        neuron: called with `num_steps` to make each neuron, e.g. `functools.partial(LIF, decay=0.5)`; `LIF`
            if not given.
        settings: the model's own, such as `width`, `norm`, `residual`: see the class of the network.

    Raises:
        ValueError: a name or setting is unknown (the message gives the nearest), or a value is outside its range.
    """
    if name not in _builders:
        raise UserError(f"unknown model {name!r}{_instead(name, list_models())}")
    allowed = _own_settings(_builders[name])
    for setting in settings:
        if setting not in allowed:
            known = [*get_type_hints(ModelSettings), *allowed]
            raise UserError(f"model {name!r} has no setting {setting!r}{_instead(setting, known)}")
    counts = {"num_classes": num_classes, "num_steps": num_steps, "in_channels": in_channels}
    for argument, value in counts.items():
        check_count(argument, value)
    network = _builders[name](neuron=neuron, **counts, **settings)
    return SpikingNetwork(network, num_steps=num_steps)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of the models that match a shell pattern such as `"resnet*"`, numbers sorted by value."""
    return sorted(fnmatch.filter(_builders, pattern), key=_by_number)


def _by_number(name: str) -> list[tuple[bool, int, str]]:
    parts = re.findall(r"\d+|\D+", name)
    return [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in parts]


def _own_settings(builder: Callable[..., nn.Module]) -> list[str]:
    """Return the names of the settings that a model takes besides those of every model."""
    names: set[str] = set()
    for parameter in inspect.signature(builder).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            typed = get_args(get_type_hints(builder).get(parameter.name))
            if not typed:
                raise UserError(f"{builder.__name__}: annotate **{parameter.name} as Unpack[a TypedDict]")
            names |= set(get_type_hints(typed[0]))
        else:
            names.add(parameter.name)
    return sorted(names - set(get_type_hints(ModelSettings)))


def _instead(wrong: str, allowed: Iterable[str]) -> str:
    """Return the end of a message about a wrong name: the nearest names, and all of them."""
    near = nearest(wrong, allowed, or_else="")
    return f"{near and f'; the nearest are {near}'}. Known are: {', '.join(allowed) or 'none'}"

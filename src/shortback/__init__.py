"""Shortback: train deep spiking neural networks with shortcut back-propagation and evolutionary training.

The names below are imported on first use, so that `import shortback` and `shortback --help` are fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shortback import data as data
    from shortback import export as export
    from shortback import health as health
    from shortback import losses as losses
    from shortback import models as models
    from shortback import neurons as neurons
    from shortback import schedules as schedules
    from shortback import surrogates as surrogates
    from shortback import training as training
    from shortback.ablation.compare import Comparison as Comparison
    from shortback.ablation.compare import compare as compare
    from shortback.diagnosis import diagnose as diagnose
    from shortback.export.operations import count_operations as count_operations
    from shortback.export.stream import stream as stream
    from shortback.health import GradientReport as GradientReport
    from shortback.initialization import scale_to_rate as scale_to_rate
    from shortback.inspection.libraries import register_reset as register_reset
    from shortback.inspection.reset import reset_states as reset_states
    from shortback.losses import TET as TET
    from shortback.losses import CrossEntropy as CrossEntropy
    from shortback.losses import ShortcutLoss as ShortcutLoss
    from shortback.losses import shortcut_loss as shortcut_loss
    from shortback.models import create_model as create_model
    from shortback.models import list_models as list_models
    from shortback.neurons import IF as IF
    from shortback.neurons import LIF as LIF
    from shortback.neurons import PLIF as PLIF
    from shortback.outputs import LossTerms as LossTerms
    from shortback.outputs import Outputs as Outputs
    from shortback.runs.sharing import load as load
    from shortback.shortcuts import ShortcutNetwork as ShortcutNetwork
    from shortback.shortcuts import attach as attach
    from shortback.shortcuts import strip as strip
    from shortback.shortcuts.weights import load_weights as load_weights
    from shortback.spiking import SpikingNetwork as SpikingNetwork
    from shortback.spiking.spikify import spikify as spikify

__version__ = "0.1.0"

_HOMES = {
    "shortback.ablation.compare": ("Comparison", "compare"),
    "shortback.diagnosis": ("diagnose",),
    "shortback.export.operations": ("count_operations",),
    "shortback.export.stream": ("stream",),
    "shortback.health": ("GradientReport",),
    "shortback.initialization": ("scale_to_rate",),
    "shortback.losses": ("CrossEntropy", "ShortcutLoss", "TET", "shortcut_loss"),
    "shortback.outputs": ("LossTerms", "Outputs"),
    "shortback.models": ("create_model", "list_models"),
    "shortback.neurons": ("IF", "LIF", "PLIF"),
    "shortback.runs.sharing": ("load",),
    "shortback.shortcuts": ("ShortcutNetwork", "attach", "strip"),
    "shortback.shortcuts.weights": ("load_weights",),
    "shortback.spiking": ("SpikingNetwork",),
    "shortback.spiking.spikify": ("spikify",),
    "shortback.inspection.libraries": ("register_reset",),
    "shortback.inspection.reset": ("reset_states",),
}
_MODULES = ("data", "export", "health", "losses", "models", "neurons", "schedules", "surrogates", "training")
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "IF",
    "LIF",
    "PLIF",
    "TET",
    "Comparison",
    "CrossEntropy",
    "GradientReport",
    "LossTerms",
    "Outputs",
    "ShortcutLoss",
    "ShortcutNetwork",
    "SpikingNetwork",
    "attach",
    "compare",
    "count_operations",
    "create_model",
    "data",
    "diagnose",
    "export",
    "health",
    "list_models",
    "load",
    "load_weights",
    "losses",
    "models",
    "neurons",
    "register_reset",
    "reset_states",
    "scale_to_rate",
    "schedules",
    "shortcut_loss",
    "spikify",
    "stream",
    "strip",
    "surrogates",
    "training",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"shortback.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'shortback' has no attribute {name!r}{_hint(name)}")


def _hint(name: str) -> str:
    """Return the end of a message about an unknown name: where it is found, or the most similar names."""
    if name.startswith("_"):  # Python itself probes for such names
        return ""
    from shortback.choices import nearest

    if name in ("fit", "evaluate"):
        return f": from shortback.training import {name}"
    return f"; the nearest are {names}" if (names := nearest(name, __all__, or_else="")) else ""


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

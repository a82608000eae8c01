"""The named choices that code, recipes and command line share.

This module imports nothing heavy, so that recipes are checked instantly.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, Literal, get_args

from shortback.errors import UserError

# Training
Method = Literal["vanilla", "shortcut", "evolutionary"]
METHODS: tuple[Method, ...] = get_args(Method)
Combine = Literal["logits", "additive", "convex"]
BranchWeights = Literal["sum", "mean"]
ScheduleKind = Literal["constant", "linear", "cosine", "exponential", "step", "adaptive"]
LossKind = Literal["cross_entropy", "tet"]
OptimizerKind = Literal["sgd", "adamw"]
LoggerKind = Literal["csv", "tensorboard", "wandb", "mlflow"]

# Neurons
NeuronKind = Literal["lif", "if", "plif"]
SurrogateKind = Literal["rectangular", "triangular", "arctan", "sigmoid", "fast_sigmoid", "tanh_window"]
SurrogateScale = Literal["area", "peak"]
Reset = Literal["hard", "soft", "none"]
Backend = Literal["auto", "reference", "compiled"]
Memory = Literal["fast", "balanced", "small"]

# Exports
ExportFormat = Literal["nir", "onnx", "torch"]
NIRImporter = Literal["any", "snntorch", "spikingjelly", "norse"]

# Networks
Residual = Literal["spiking", "sew", "membrane", "plain"]
Stem = Literal["cifar", "imagenet", "deep"]
Norm = Literal["batch", "tdbn", "tebn", "none"]
Pool = Literal["max", "average"]
Readout = Literal["mean", "steps"]
Layout = Literal["folded", "folded_batch", "time_first", "batch_first", "time_last", "steps"]
Reduction = Literal["mean", "sum", "last"]

# Data
ImageKind = Literal["bundled", "fashion_mnist", "cifar10", "cifar100", "image_folder", "shards"]
EventKind = Literal["cifar10_dvs", "dvs_gesture", "nmnist", "ncaltech101", "event_folder", "simulated_events"]
DataKind = Literal[ImageKind, EventKind]
AutoAugment = Literal["cifar10", "imagenet"]
FramesBy = Literal["count", "duration"]
Resize = Literal["sum", "nearest"]
FrameValues = Literal["count", "binary"]
DVSSplit = Literal["last100", "lexicographic", "seeded"]

# Answers to the questions of `shortback recipes new`
Have = Literal["images", "cifar10", "cifar100", "events", "bundled"]
RecipeNetwork = Literal["resnet18", "resnet20", "resnet34", "vgg16", "plain32"]

# The machine
Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Compile = Literal["neuron", "model", "off"]


def check_choice(name: str, value: object, choices: Any, *, or_else: tuple[str, ...] = ()) -> None:
    """Raise `UserError` if `value` is neither one of the values of the `Literal` `choices` nor in `or_else`."""
    allowed = (*or_else, *get_args(choices))
    if value not in allowed:
        raise UserError(f"{name}={value!r}: must be one of {', '.join(allowed)}")


def nearest(wrong: str, known: Iterable[str], *, or_else: str = "none") -> str:
    """Return up to three known names most similar to a wrong one, comma-separated; `or_else` if none is similar."""
    return ", ".join(difflib.get_close_matches(wrong, list(known), n=3, cutoff=0.3)) or or_else


def usual_start(combine: Combine) -> float:
    """Return the initial coefficient of evolutionary training: 0.25 for added logits (the paper), otherwise 1."""
    return 0.25 if combine == "logits" else 1.0

"""The sections of a recipe on the training: branches, loss, optimizer, the loop, and looks at the gradients."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from shortback.choices import (
    BranchWeights,
    Combine,
    Compile,
    Device,
    LoggerKind,
    LossKind,
    Memory,
    OptimizerKind,
    Precision,
    ScheduleKind,
    usual_start,
)
from shortback.recipes.fields import Count, Fraction, NonNegative, Positive, Section


def usual_coefficient(combine: Combine, start: Any) -> float:
    """That of `shortcut`: where a sum of losses starts; 1 for logits, and for no number, which is told of itself."""
    try:
        return float(start) if combine != "logits" and float(start) >= 0 else 1.0
    except (TypeError, ValueError, OverflowError):
        return 1.0


class BranchesConfig(Section):
    """Where branches go and how much they weigh.

    What two of them start from depends on `combine`: sums of losses start at 1, and their `coefficient` is their
    `start`.
    """

    at: str | list[str] = "blocks"
    """Where they are: `blocks`, `stages`, `auto` (chosen by a diagnosis), or names of modules."""
    weights: BranchWeights = "sum"
    """Whether the outputs of the branches are added up or averaged."""
    combine: Combine = "logits"
    """What is added: the logits (the paper), or the losses (`additive`), these also as a weighted mean (`convex`)."""
    coefficient: NonNegative = 1.0
    """Of the method `shortcut`, all along; for sums of losses, `start`."""
    schedule: ScheduleKind = "linear"
    """How the coefficient of `evolutionary` goes from `start` to `end`; `adaptive` follows the gradients instead."""
    start: NonNegative = 0.25
    """Where it starts; for sums of losses, at 1."""
    end: NonNegative = 0.0
    """Where it ends."""
    over: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the training in which it gets there."""
    rate: Positive = 5.0
    """How fast it falls, for `exponential`."""
    num_levels: Annotated[int, Field(ge=2)] = 4
    """How many values it has, for `step`."""
    share: Fraction = 0.5
    """For `adaptive`: the branches' share of the first layer's gradient at the start, which falls to 0."""
    keep: bool = False
    """Whether the branches are written too, to a file of their own, for early exit in depth."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        """Say the coefficients, whose defaults depend on how the outputs are combined."""
        if not isinstance(tree, dict) or tree.get("combine", "logits") not in get_args(Combine):
            return tree
        combine = tree.get("combine", "logits")
        start = tree.get("start", usual_start(combine))
        return {"coefficient": usual_coefficient(combine, start), **tree, "start": start}


class LossConfig(Section):
    """The loss of the main output; branches take cross entropy."""

    kind: LossKind = "cross_entropy"
    """Of the mean of the steps, or of each step (`tet`, temporal efficient training)."""
    label_smoothing: Fraction = 0.0
    """What of the target is spread over all classes."""
    tet_weight: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Of the regulariser of `tet`."""


class OptimizerConfig(Section):
    """The optimizer, and its learning rate by step."""

    kind: OptimizerKind = "sgd"
    """SGD with momentum, or AdamW."""
    lr: Positive = 0.1
    """Learning rate, at its largest."""
    momentum: Fraction = 0.9
    """Of SGD."""
    nesterov: bool = False
    """Whether the momentum of SGD is Nesterov's."""
    weight_decay: NonNegative = 1e-4
    """Of weights alone; norms, biases and what neurons learn have none."""
    warmup_epochs: NonNegative = 0.0
    """How long the learning rate rises to its largest; then it falls as a cosine."""
    final_lr: NonNegative = 0.0
    """Where the learning rate ends."""
    clip_norm: Positive | None = None
    """Largest norm of the whole gradient; `null` for any."""


class TrainConfig(Section):
    """The loop, and the machine it runs on."""

    epochs: Count = 10
    """How many times it sees the data."""
    patience: Count | None = None
    """Epochs without a better validation after which training ends; `null` for all of them."""
    batch_size: Count = 128
    """Images of an optimizer step, over all processes."""
    accumulate: Count = 1
    """Parts that a batch is computed in, one after another, for less memory."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the weights, which is then what is evaluated and kept."""
    precision: Precision | Literal["auto"] = "auto"
    """Of matrix products; `auto` is bf16 where the processor multiplies in it."""
    channels_last: bool = True
    """Whether images lie in memory with their channels last, which compiled neurons need to be fastest."""
    # YAML reads a bare off as false.
    compile: Annotated[Compile, BeforeValidator(lambda v: "off" if v is False else v)] = "neuron"
    """The neurons alone, the whole model, or nothing."""
    memory: Memory = "balanced"
    """What layers keep for the backward pass: all, spikes as bits, or also convolve again (`small`, slower)."""
    device: Device | Literal["auto"] = "auto"
    """`auto` is a GPU where there is one."""
    log_every: Count = 10
    """Optimizer steps between rows of metrics."""
    checkpoint_every: Count | None = None
    """Optimizer steps between checkpoints inside an epoch; there is one after each epoch anyway."""
    hang_minutes: Positive | None = 15.0
    """Without a new batch, after which the process that others wait for is named and all end."""
    keep_best: Count = 1
    """How many of the best epochs' weights stay."""
    loggers: tuple[LoggerKind, ...] = ()
    """Where metrics go besides `metrics.jsonl`."""

    @model_validator(mode="before")
    @classmethod
    def _read_the_older_word(cls, tree: Any) -> Any:
        """What was `tensorboard: true` before there were other loggers: one of the list, or none."""
        if not isinstance(tree, dict) or "tensorboard" not in tree or not isinstance(tree["tensorboard"], bool):
            return tree
        tree = dict(tree)
        wanted, loggers = tree.pop("tensorboard"), tree.get("loggers", [])
        if isinstance(loggers, list | tuple):
            others = [one for one in loggers if one != "tensorboard"]
            tree["loggers"] = [*others, "tensorboard"] if wanted else others
        return tree


class HealthConfig(Section):
    """When training looks at its gradients: before the first step, and `every` steps from there."""

    every: Count | None = 200
    """Optimizer steps between looks; `null` for none."""
    samples: Annotated[int, Field(ge=2)] = 16
    """Of the batch at hand, on which they are looked at."""

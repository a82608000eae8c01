"""The recipe sections on training: branches, loss, optimizer, the loop, and measurements of the gradients."""

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
    """The default coefficient of `shortcut`: `start` for sums of losses, and 1 for logits.

    Also 1 where `start` is not a number of 0 or more, an error that validation reports.
    """
    try:
        return float(start) if combine != "logits" and float(start) >= 0 else 1.0
    except (TypeError, ValueError, OverflowError):
        return 1.0


class BranchesConfig(Section):
    """Where branches go and how much they weigh.

    Two defaults depend on `combine`: for sums of losses, `start` is 1 and `coefficient` is the value of `start`.
    """

    at: str | list[str] = "blocks"
    """Where branches are attached: `blocks`, `stages`, `auto` (chosen by a diagnosis), or names of modules."""
    weights: BranchWeights = "sum"
    """Whether the terms of the branches are added up (`sum`) or averaged (`mean`)."""
    combine: Combine = "logits"
    """What is added, required with branches: `logits` (the paper), losses (`additive`) or their mean (`convex`)."""
    coefficient: NonNegative = 1.0
    """Constant coefficient of the method `shortcut`; for sums of losses, `start` by default."""
    schedule: ScheduleKind = "linear"
    """How `evolutionary` goes from `start` to `end`; `constant` stays at `start`, `adaptive` follows the gradients."""
    start: NonNegative = 0.25
    """First value of the coefficient; for sums of losses, 1 by default."""
    end: NonNegative = 0.0
    """Last value of the coefficient."""
    over: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the training after which the coefficient has reached its last value."""
    rate: Positive = 5.0
    """How fast the coefficient falls, for `exponential`."""
    num_levels: Annotated[int, Field(ge=2)] = 4
    """Number of values that the coefficient takes, for `step`."""
    share: Fraction = 0.5
    """For `adaptive`, the branches' initial share of the first layer's gradient, which falls to 0."""
    keep: bool = False
    """Whether to save the branches too, in a file of their own, for early exit in depth."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        """Fill in the coefficients, whose defaults depend on how the outputs are combined."""
        if not isinstance(tree, dict) or tree.get("combine", "logits") not in get_args(Combine):
            return tree
        combine = tree.get("combine", "logits")
        start = tree.get("start", usual_start(combine))
        return {"coefficient": usual_coefficient(combine, start), **tree, "start": start}


class LossConfig(Section):
    """The loss of the main output, or of the sum of logits; branches by themselves use cross entropy."""

    kind: LossKind = "cross_entropy"
    """Cross entropy of the mean over the steps, or of each step (`tet`, temporal efficient training)."""
    label_smoothing: Fraction = 0.0
    """Fraction of the target that is spread evenly over all classes."""
    tet_weight: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Weight of the regulariser of `tet`."""


class OptimizerConfig(Section):
    """The optimizer, and its learning rate at each step."""

    kind: OptimizerKind = "sgd"
    """SGD with momentum (`sgd`), or AdamW (`adamw`)."""
    lr: Positive = 0.1
    """Largest learning rate; for AdamW, 0.001 by default."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Whether SGD uses Nesterov momentum."""
    weight_decay: NonNegative = 1e-4
    """Weight decay of weights only; norms, biases and the parameters of neurons have none."""
    warmup_epochs: NonNegative = 0.0
    """Epochs during which the learning rate rises to its largest value; then it falls as a cosine."""
    final_lr: NonNegative = 0.0
    """Learning rate at the end of training."""
    clip_norm: Positive | None = None
    """Largest norm of the whole gradient; `null` for no clipping."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        """Fill in the learning rate, whose default depends on the optimizer."""
        return {"lr": 1e-3, **tree} if isinstance(tree, dict) and tree.get("kind") == "adamw" else tree


class TrainConfig(Section):
    """The training loop, and the machine it runs on."""

    epochs: Count = 10
    """Passes over the training data."""
    patience: Count | None = None
    """Epochs without a better validation after which training ends; `null` to train for all epochs."""
    batch_size: Count = 128
    """Images per optimizer step, over all processes."""
    accumulate: Count = 1
    """Parts that a batch is split into and computed one after another, to save memory."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a moving average of the weights, which is then evaluated and kept; `null` for none."""
    precision: Precision | Literal["auto"] = "auto"
    """Precision of matrix products; `auto` is bf16 where the processor multiplies in it."""
    channels_last: bool = True
    """Whether tensors are stored channels-last, the layout in which compiled neurons are fastest."""
    # YAML reads a bare `off` as false.
    compile: Annotated[Compile, BeforeValidator(lambda v: "off" if v is False else v)] = "neuron"
    """What to compile: only the neurons, the whole model, or nothing."""
    memory: Memory = "balanced"
    """What layers keep for the backward pass: all, spikes as bits, or less by convolving again (`small`, slower)."""
    device: Device | Literal["auto"] = "auto"
    """Device to train on; `auto` is a GPU if there is one."""
    log_every: Count = 10
    """Optimizer steps between rows of metrics."""
    checkpoint_every: Count | None = None
    """Optimizer steps between checkpoints within an epoch; there is always one after each epoch."""
    hang_minutes: Positive | None = 15.0
    """Minutes without a new batch after which the stuck process is named and all end."""
    keep_best: Count = 1
    """Number of best epochs whose weights are kept."""
    loggers: tuple[LoggerKind, ...] = ()
    """Where metrics go besides `metrics.jsonl`."""

    @model_validator(mode="before")
    @classmethod
    def _read_tensorboard_flag(cls, tree: Any) -> Any:
        """Read the older `tensorboard: true` or `false` as an entry of `loggers`, or none."""
        if not isinstance(tree, dict) or "tensorboard" not in tree or not isinstance(tree["tensorboard"], bool):
            return tree
        tree = dict(tree)
        wanted, loggers = tree.pop("tensorboard"), tree.get("loggers", [])
        if isinstance(loggers, list | tuple):
            others = [one for one in loggers if one != "tensorboard"]
            tree["loggers"] = [*others, "tensorboard"] if wanted else others
        return tree


class HealthConfig(Section):
    """When training measures its gradients: before the first step, and every `every` steps from there."""

    every: Count | None = 200
    """Optimizer steps between measurements; `null` for none."""
    samples: Annotated[int, Field(ge=2)] = 16
    """Samples of the current batch on which the gradients are measured."""

"""The recipe: everything a run is made from, as data.

Names and numbers only; `load.py` reads it from YAML.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from shortback.choices import (
    AutoAugment,
    Backend,
    BranchWeights,
    Combine,
    Compile,
    DataKind,
    Device,
    EventKind,
    FramesBy,
    FrameValues,
    LoggerKind,
    LossKind,
    Memory,
    Method,
    NeuronKind,
    Norm,
    OptimizerKind,
    Pool,
    Precision,
    Reset,
    Residual,
    Resize,
    ScheduleKind,
    Stem,
    SurrogateKind,
    SurrogateScale,
    nearest,
    usual_start,
)
from shortback.errors import UserError
from shortback.recipes.fields import Count, Fraction, NonNegative, Positive, Section
from shortback.recipes.yaml_text import write_yaml


class SurrogateConfig(Section):
    kind: SurrogateKind = "triangular"
    half_width: Positive | None = None
    slope: Positive | None = None
    scale: SurrogateScale | Positive = "area"


class NeuronConfig(Section):
    kind: NeuronKind = "lif"
    decay: Annotated[float, Field(ge=0, le=1)] | None = None
    threshold: Positive = 1.0
    reset: Reset = "hard"
    detach_reset: bool = False
    surrogate: SurrogateConfig = SurrogateConfig()
    reset_to: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    initial: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    fires_above: bool = False
    decay_input: bool = False
    backend: Backend = "auto"


class ModelConfig(Section):
    name: str
    num_steps: Count = 4
    width: Positive | None = None
    residual: Residual | None = None
    stem: Stem | None = None
    norm: Norm | None = None
    pool: Pool | None = None
    neuron: NeuronConfig = NeuronConfig()

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        from shortback.models import list_models

        if name not in list_models():
            raise UserError(f"no such model; the nearest are {nearest(name, list_models())}")
        return name


class AugmentConfig(Section):
    crop_padding: Annotated[int, Field(ge=0)] = 0
    resized_crop: bool = False
    flip: bool = False
    roll: Annotated[int, Field(ge=0)] = 0
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    auto_augment: AutoAugment | None = None
    rand_augment: Annotated[int, Field(ge=0, le=30)] | None = None
    cutout: Annotated[int, Field(ge=0)] = 0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0


class FramesConfig(Section):
    """What recordings of events become; as many frames as `model.num_steps`."""

    size: Count = 48
    by: FramesBy = "count"
    resize: Resize = "sum"
    values: FrameValues = "count"
    keep_aspect: bool = False


class DataConfig(Section):
    """What to train on; `url` and `cache_gb` are of shards, `cache_dir` of folders too, `on_device` is of the GPU.

    `sensor` is the height and width, in pixels, of recordings whose files do not say them.
    """

    kind: DataKind = "bundled"
    root: Path | None = None
    url: str | None = None
    cache_dir: Path | None = None
    cache_gb: Positive | None = None
    download: bool = False
    skip_bad: bool = False
    image_size: Count | None = None
    frames: FramesConfig | None = None
    split: str | None = None
    sensor: tuple[Count, Count] | None = None
    train_images: Count | None = None
    validation_fraction: Fraction = 0.1
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    on_device: bool | Literal["auto"] = "auto"
    augment: AugmentConfig = AugmentConfig()


def usual_coefficient(combine: Combine, start: Any) -> float:
    """That of `shortcut`: where a sum of losses starts; 1 for logits, and for no number, which is told of itself."""
    try:
        return float(start) if combine != "logits" and float(start) >= 0 else 1.0
    except (TypeError, ValueError, OverflowError):
        return 1.0


class BranchesConfig(Section):
    """Where branches go and how much they weigh.

    `coefficient` is that of the method `shortcut`, 1 where it is not said; `schedule`, `start`, `end` and `over` are of
    `evolutionary`, which starts at 0.25 where it is not said. Sums of losses (`combine` other than `logits`) start at
    1, and their `coefficient` is their `start`. `share` is where the schedule `adaptive` begins. With `keep` the
    branches are written too, to a file of their own, for early exit in depth.
    """

    at: str | list[str] = "blocks"
    weights: BranchWeights = "sum"
    combine: Combine = "logits"
    coefficient: NonNegative = 1.0
    schedule: ScheduleKind = "linear"
    start: NonNegative = 0.25
    end: NonNegative = 0.0
    over: Annotated[float, Field(gt=0, le=1)] = 1.0
    rate: Positive = 5.0
    num_levels: Annotated[int, Field(ge=2)] = 4
    share: Fraction = 0.5
    keep: bool = False

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
    kind: LossKind = "cross_entropy"
    label_smoothing: Fraction = 0.0
    tet_weight: Annotated[float, Field(ge=0, le=1)] = 0.05


class OptimizerConfig(Section):
    kind: OptimizerKind = "sgd"
    lr: Positive = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 1e-4
    warmup_epochs: NonNegative = 0.0
    final_lr: NonNegative = 0.0
    clip_norm: Positive | None = None


class TrainConfig(Section):
    epochs: Count = 10
    patience: Count | None = None
    batch_size: Count = 128
    accumulate: Count = 1
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Precision | Literal["auto"] = "auto"
    channels_last: bool = True
    # YAML reads a bare off as false.
    compile: Annotated[Compile, BeforeValidator(lambda v: "off" if v is False else v)] = "neuron"
    memory: Memory = "balanced"
    device: Device | Literal["auto"] = "auto"
    log_every: Count = 10
    checkpoint_every: Count | None = None
    hang_minutes: Positive | None = 15.0
    keep_best: Count = 1
    loggers: tuple[LoggerKind, ...] = ()

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
    """When training looks at its gradients: before the first step, and `every` steps from there; null for never."""

    every: Count | None = 200
    samples: Annotated[int, Field(ge=2)] = 16


class Variant(Section):
    """One side of a comparison that is not a method as the recipe has it: what it changes of the branches.

    `coefficient` and `start` are the usual ones of its `combine` where they are not said, as in `BranchesConfig`.
    """

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]  # of a folder, which is neither `..` nor hidden
    method: Method
    combine: Combine
    coefficient: NonNegative | None = None
    start: NonNegative | None = None


def _kind_of_side(value: Any) -> str:
    return "method" if isinstance(value, str) else "variant"


# Told apart before they are checked, so that a mistake is reported once.
Side = Annotated[Annotated[Method, Tag("method")] | Annotated[Variant, Tag("variant")], Discriminator(_kind_of_side)]


class Recipe(Section):
    """One run, or with `compare` one run for each of several methods and variants of them."""

    method: Method = "evolutionary"
    compare: list[Side] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    model: ModelConfig
    data: DataConfig = DataConfig()
    branches: BranchesConfig = BranchesConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    health: HealthConfig = HealthConfig()

    @model_validator(mode="after")
    def _agree(self) -> Recipe:
        if self.train.batch_size % self.train.accumulate:
            raise UserError(
                f"train.accumulate={self.train.accumulate} must divide train.batch_size={self.train.batch_size}"
            )
        if self.branches.combine == "convex":
            largest = max(self.branches.start, self.branches.end, self.branches.coefficient)
            if largest > 1:
                raise UserError(
                    "branches.combine='convex' needs branches.start, branches.end and branches.coefficient of at most 1"
                )
        if self.compare == []:
            raise UserError("compare: [] compares nothing; name methods, or leave it out")
        if self.optimizer.final_lr > self.optimizer.lr:
            raise UserError(
                f"optimizer.final_lr={self.optimizer.final_lr:g} is above optimizer.lr={self.optimizer.lr:g}: the "
                "learning rate falls from the second to the first"
            )
        names = [side if isinstance(side, str) else side.name for side in self.compare or ()]
        if len(set(names)) < len(names):
            raise UserError(f"compare names one twice: {', '.join(names)}")
        if self.data.kind in get_args(EventKind):
            wrong = [key for key in ("resized_crop", "auto_augment", "rand_augment") if getattr(self.data.augment, key)]
            if wrong:
                raise ValueError(
                    f"data.augment.{wrong[0]} is for photographs: its operations change colours and brightness, and "
                    "frames of events are counts; use flip, roll, crop_padding, rotate, shear, cutout or mixup"
                )
            if self.data.image_size is not None:
                raise ValueError("data.image_size is for images; frames of events have data.frames.size")
        elif given := [key for key in ("frames", "split", "sensor") if getattr(self.data, key) is not None]:
            key = given[0]
            raise ValueError(f"data.{key} is for recordings of events, and data.kind={self.data.kind} are images")
        if self.optimizer.kind == "adamw" and self.optimizer.nesterov:
            raise UserError("optimizer.nesterov is for optimizer.kind='sgd'")
        return self

    def to_yaml(self) -> str:
        return write_yaml(self.model_dump(mode="json"))

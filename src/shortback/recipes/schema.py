"""The recipe: everything a run is made from, as data.

Names and numbers only; `load.py` reads it from YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import Discriminator, Field, Tag, model_validator

from shortback.choices import Combine, EventKind, Method
from shortback.errors import UserError
from shortback.recipes.data_settings import DataConfig
from shortback.recipes.fields import NonNegative, Section
from shortback.recipes.network_settings import ModelConfig
from shortback.recipes.training_settings import BranchesConfig, HealthConfig, LossConfig, OptimizerConfig, TrainConfig
from shortback.recipes.yaml_text import write_yaml


class Variant(Section):
    """A side of a comparison that changes the recipe's method and branches.

    If not given, `coefficient` and `start` are the defaults for its `combine`, as in `BranchesConfig`.
    """

    name: Annotated[str, Field(pattern=r"^[\w-][\w.-]*$")]  # also names a folder: neither `..` nor hidden
    method: Method
    combine: Combine
    coefficient: NonNegative | None = None
    start: NonNegative | None = None


def _kind_of_side(value: Any) -> str:
    return "method" if isinstance(value, str) else "variant"


# A discriminated union, so that a mistake is reported once, not for each type.
Side = Annotated[Annotated[Method, Tag("method")] | Annotated[Variant, Tag("variant")], Discriminator(_kind_of_side)]


class Recipe(Section):
    """One run, or with `compare` one run for each of several methods and variants of them."""

    method: Method = "evolutionary"
    """No branches (`vanilla`), or branches with a constant coefficient (the paper, eq. 7) or a falling one (eq. 10)."""
    compare: list[Side] | None = None
    """Methods or variants to train one after another and to show in one table."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the weights, the order of the data, augmentation, and which images are used and set aside."""
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
            raise UserError(f"compare has a name twice: {', '.join(names)}")
        if self.data.kind in get_args(EventKind):
            augment = self.data.augment
            wrong = [key for key in ("resized_crop", "auto_augment") if getattr(augment, key)]
            wrong += ["rand_augment"] * (augment.rand_augment is not None)
            if wrong:
                raise UserError(
                    f"data.augment.{wrong[0]} is for photographs, and frames of events are counts, without colours "
                    "or brightness; use flip, roll, crop_padding, rotate, shear, cutout or mixup"
                )
            if self.data.image_size is not None:
                raise UserError("data.image_size is for images; frames of events have data.frames.size")
        elif given := [key for key in ("frames", "split", "sensor") if getattr(self.data, key) is not None]:
            key = given[0]
            raise UserError(f"data.{key} is for recordings of events, and data.kind={self.data.kind} has images")
        if self.optimizer.kind == "adamw" and self.optimizer.nesterov:
            raise UserError("optimizer.nesterov is for optimizer.kind='sgd'")
        return self

    def without_paths(self) -> Recipe:
        """The recipe without the paths of this machine, where the data and their caches lie."""
        return self.model_copy(update={"data": self.data.model_copy(update={"root": None, "cache_dir": None})})

    def to_yaml(self) -> str:
        return write_yaml(self.model_dump(mode="json"))

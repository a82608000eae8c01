"""The recipe: everything a run is made from, as data.

A recipe is YAML with names and numbers only. Unknown keys are errors, and all errors of a file are reported together.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from shortback.combine import BranchWeights, Combine, usual_start

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Method = Literal["vanilla", "shortcut", "evolutionary"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SurrogateConfig(_Section):
    kind: Literal["rectangular", "triangular", "arctan", "sigmoid", "fast_sigmoid", "tanh_window"] = "triangular"
    half_width: Positive | None = None
    slope: Positive | None = None
    scale: Literal["area", "peak"] | Positive = "area"


class NeuronConfig(_Section):
    kind: Literal["lif", "if", "plif"] = "lif"
    decay: Annotated[float, Field(allow_inf_nan=False)] | None = None
    threshold: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    reset: Literal["hard", "soft"] = "hard"
    detach_reset: bool = False
    surrogate: SurrogateConfig = SurrogateConfig()
    backend: Literal["auto", "reference", "compiled"] = "auto"


class ModelConfig(_Section):
    name: str
    num_steps: Count = 4
    width: Positive | None = None
    residual: Literal["spiking", "sew", "membrane", "plain"] | None = None
    stem: Literal["cifar", "imagenet"] | None = None
    norm: Literal["batch", "none"] | None = None
    pool: Literal["max", "average"] | None = None
    neuron: NeuronConfig = NeuronConfig()

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        from shortback.models import list_models

        if name not in list_models():
            nearest = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.3)
            raise ValueError(f"no such model; the nearest are {', '.join(nearest) or 'none'}")
        return name


class AugmentConfig(_Section):
    crop_padding: Annotated[int, Field(ge=0)] = 0
    resized_crop: bool = False
    flip: bool = False
    auto_augment: Literal["cifar10", "imagenet"] | None = None
    rand_augment: Annotated[int, Field(ge=0, le=30)] | None = None
    cutout: Annotated[int, Field(ge=0)] = 0
    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0


class DataConfig(_Section):
    kind: Literal["bundled", "fashion_mnist", "cifar10", "cifar100", "image_folder"] = "bundled"
    root: Path | None = None
    download: bool = False
    skip_bad: bool = False
    image_size: Count | None = None
    train_images: Count | None = None
    validation_fraction: Fraction = 0.1
    num_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    augment: AugmentConfig = AugmentConfig()


class BranchesConfig(_Section):
    """Where branches go and how much they weigh.

    `coefficient` is that of the method `shortcut`, 1 where it is not said; `schedule`, `start`, `end` and `over` are of
    `evolutionary`, which starts at 0.25 where it is not said. Sums of losses (`combine` other than `logits`) start at
    1, and their `coefficient` is their `start`. `share` is where the schedule `adaptive` begins.
    """

    at: str | list[str] = "blocks"
    weights: BranchWeights = "sum"
    combine: Combine = "logits"
    coefficient: NonNegative = 1.0
    schedule: Literal["linear", "cosine", "exponential", "step", "adaptive"] = "linear"
    start: NonNegative = 0.25
    end: NonNegative = 0.0
    over: Annotated[float, Field(gt=0, le=1)] = 1.0
    rate: Positive = 5.0
    num_levels: Annotated[int, Field(ge=2)] = 4
    share: Fraction = 0.5

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, tree: Any) -> Any:
        """Say the coefficients, whose defaults depend on how the outputs are combined."""
        if not isinstance(tree, dict) or tree.get("combine", "logits") not in get_args(Combine):
            return tree
        combine = tree.get("combine", "logits")
        start = tree.get("start", usual_start(combine))
        return {"coefficient": 1.0 if combine == "logits" else start, **tree, "start": start}


class LossConfig(_Section):
    kind: Literal["cross_entropy", "tet"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    tet_weight: Annotated[float, Field(ge=0, le=1)] = 0.05


class OptimizerConfig(_Section):
    kind: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegative = 1e-4
    warmup_epochs: NonNegative = 0.0
    final_lr: NonNegative = 0.0
    clip_norm: Positive | None = None


class TrainConfig(_Section):
    epochs: Count = 10
    batch_size: Count = 128
    accumulate: Count = 1
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    channels_last: bool = True
    # YAML reads a bare off as false.
    compile: Annotated[Literal["neuron", "model", "off"], BeforeValidator(lambda v: "off" if v is False else v)] = (
        "neuron"
    )
    memory: Literal["fast", "balanced", "small"] = "balanced"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    log_every: Count = 10
    checkpoint_every: Count | None = None
    tensorboard: bool = False


class HealthConfig(_Section):
    """When training looks at its gradients: before the first step, and `every` steps from there; null for never."""

    every: Count | None = 200
    samples: Annotated[int, Field(ge=2)] = 16


class Recipe(_Section):
    """One run, or with `compare` one run for each of several methods."""

    method: Method = "evolutionary"
    compare: list[Method] | None = None
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
            raise ValueError(
                f"train.accumulate={self.train.accumulate} must divide train.batch_size={self.train.batch_size}"
            )
        if self.branches.combine == "convex":
            largest = max(self.branches.start, self.branches.end, self.branches.coefficient)
            if largest > 1:
                raise ValueError(
                    "branches.combine='convex' needs branches.start, branches.end and branches.coefficient of at most 1"
                )
        if self.optimizer.kind == "adamw" and self.optimizer.nesterov:
            raise ValueError("optimizer.nesterov is for optimizer.kind='sgd'")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


class RecipeError(ValueError):
    """A recipe that cannot be used; the message lists everything that is wrong with it."""


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("shortback") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def recipe_text(recipe: str) -> str:
    """The YAML of a recipe: the name of one that comes with the package, or a file.

    Raises:
        RecipeError: neither a name nor a file (with the nearest names).
    """
    if recipe in recipe_names():
        return (resources.files("shortback") / "recipes" / f"{recipe}.yaml").read_text()
    path = Path(recipe)
    if path.is_file():
        return path.read_text()
    nearest = difflib.get_close_matches(recipe, recipe_names(), n=3, cutoff=0.3)
    raise RecipeError(
        f"{recipe!r} is neither a recipe nor a file; the nearest recipes are {', '.join(nearest) or 'none'} "
        "(all of them: shortback recipes ls)"
    )


def load_recipe(recipe: str, *, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe and change it by settings `key=value`, the key dotted and the value YAML.

    Raises:
        RecipeError: everything that is wrong, each with its dotted path.
    """
    try:
        tree = yaml.safe_load(recipe_text(recipe))
    except yaml.YAMLError as error:
        raise RecipeError(f"{recipe} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(f"{recipe} is not a recipe: its top level must be keys such as model and train")
    for setting in settings:
        _apply(tree, setting)
    parsed = parse_recipe(tree, name=recipe)
    _refuse_unsaid_form(tree, name=recipe)
    return parsed


def _refuse_unsaid_form(tree: dict[str, Any], *, name: str) -> None:
    """A recipe that says nothing of it once meant `additive`, and is not to become `logits` in silence."""
    branches = tree.get("branches", {})
    methods = tree.get("compare") or [tree.get("method", "evolutionary")]
    if isinstance(branches, dict) and "combine" not in branches and methods != ["vanilla"]:
        raise RecipeError(
            f"{name}: branches.combine is not said: write logits (the paper's form, with a coefficient that falls from "
            "0.25), or additive (a sum of losses, with one that falls from 1), which a recipe without it was before"
        )


def parse_recipe(tree: dict[str, Any], *, name: str) -> Recipe:
    """Check a recipe that was read already; see `load_recipe`."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = [_describe(problem) for problem in error.errors()]
        raise RecipeError(f"{name}: {len(lines)} problem(s)\n" + "\n".join(lines)) from None


def differences(ours: Recipe, theirs: Recipe) -> list[str]:
    """What differs between two recipes, a line `key: ours, theirs` each."""
    a, b = flatten(ours.model_dump(mode="json")), flatten(theirs.model_dump(mode="json"))
    return [f"{key}: {a.get(key)!r}, {b.get(key)!r}" for key in sorted({*a, *b}) if a.get(key) != b.get(key)]


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, separator, value = setting.partition("=")
    if not separator or not key:
        raise RecipeError(f"-s {setting}: write key=value, for example -s train.epochs=3")
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise RecipeError(f"-s {setting}: {parent!r} has no keys of its own")
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise RecipeError(f"-s {setting}: {value!r} is not a YAML value") from None


def _describe(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        known = _keys_at(problem["loc"][:-1])
        nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=3, cutoff=0.4)
        message = f"unknown key; {'did you mean ' + ', '.join(nearest) if nearest else 'known are ' + ', '.join(known)}"
    elif problem["type"] == "missing":
        message = "is missing"
    elif not isinstance(problem["input"], dict):
        message = f"{message}, got {problem['input']!r}"
    return f"  {path}: {message}" if path else f"  {message}"


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    section: Any = Recipe
    for part in path:
        section = section.model_fields[part].annotation
    return list(section.model_fields)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree's values by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat

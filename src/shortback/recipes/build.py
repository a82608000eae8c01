"""Build the objects of a run from its recipe: the only place where a recipe becomes objects."""

from __future__ import annotations

import dataclasses
import functools
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback import schedules
from shortback.choices import EventKind, Method
from shortback.data import (
    Augmentation,
    BatchLoader,
    ImageData,
    ImageSet,
    batch_mixing,
    eval_transform,
    limit_images,
    load_data,
    split_validation,
    train_transform,
)
from shortback.data.events import Frames
from shortback.data.resident import ResidentLoader, why_not_resident
from shortback.errors import UserError
from shortback.losses import TET, CrossEntropy, ShortcutLoss
from shortback.models import create_model
from shortback.neurons import NEURONS
from shortback.recipes.batch_size import check_batch_size
from shortback.recipes.data_settings import DataConfig, FramesConfig
from shortback.recipes.memory import check_memory
from shortback.recipes.network_settings import ModelConfig, NeuronConfig
from shortback.recipes.schema import Recipe
from shortback.recipes.training_settings import BranchesConfig, LossConfig, TrainConfig
from shortback.shortcuts.places import find_places
from shortback.spiking import SpikingNetwork
from shortback.surrogates import SURROGATES
from shortback.training import (
    Execution,
    Plan,
    WarmupCosine,
    build_optimizer,
    choose_execution,
    choose_num_workers,
)

log = logging.getLogger("shortback")

_PLANNED = {field.name for field in dataclasses.fields(Plan)} & set(TrainConfig.model_fields)  # passed on unchanged


@dataclass(frozen=True)
class Splits:
    """The data of a run; `validation` is None if no images are set aside."""

    source: ImageData
    train: ImageSet
    validation: ImageSet | None


def build_neuron(config: NeuronConfig) -> functools.partial:
    """A factory of neurons, called with the number of time steps.

    Raises:
        ValueError: a setting that this kind of neuron or surrogate does not have.
    """
    surrogate = SURROGATES[config.surrogate.kind]
    settings = config.surrogate.model_dump(exclude={"kind"}, exclude_none=True)
    unknown = set(settings) - set(surrogate.__dataclass_fields__)
    if unknown:
        raise UserError(f"model.neuron.surrogate: {config.surrogate.kind} has no {', '.join(sorted(unknown))}")
    common = config.model_dump(exclude={"kind", "decay", "surrogate"})
    if config.decay is not None:
        if config.kind == "if":
            raise UserError("model.neuron.decay: an IF neuron has none; use kind=lif")
        common["decay"] = config.decay
    return functools.partial(NEURONS[config.kind], surrogate=surrogate(**settings), **common)


def build_model(config: ModelConfig, *, num_classes: int, in_channels: int) -> SpikingNetwork:
    """The network of a recipe, without branches."""
    settings = config.model_dump(include={"width", "residual", "stem", "norm", "pool"}, exclude_none=True)
    return create_model(
        config.name,
        num_classes=num_classes,
        num_steps=config.num_steps,
        in_channels=in_channels,
        neuron=build_neuron(config.neuron),
        **settings,
    )


def build_data(config: DataConfig, *, num_steps: int, seed: int) -> Splits:
    """The splits of a recipe; which images are set aside depends only on the seed.

    Args:
        num_steps: time steps of the network, which is also the number of frames per recording.
    """
    frames = None
    if config.kind in get_args(EventKind):
        frames = Frames(num_steps=num_steps, **(config.frames or FramesConfig()).model_dump())
    source = load_data(
        config.kind,
        root=config.root,
        download=config.download,
        skip_bad=config.skip_bad,
        image_size=config.image_size,
        url=config.url,
        cache_dir=config.cache_dir,
        cache_gb=config.cache_gb,
        frames=frames,
        split=config.split,
        sensor=config.sensor,
    )
    train = source.train
    if config.train_images is not None:
        train = limit_images(train, count=config.train_images, seed=seed)
    if config.validation_fraction == 0:
        return Splits(source, train, None)
    train, validation = split_validation(train, fraction=config.validation_fraction, seed=seed)
    return Splits(source, train, validation)


def build_loader(images: ImageSet, recipe: Recipe, source: ImageData, *, training: bool, fabric: Fabric) -> BatchLoader:
    """A loader of batches of a split; for training they are augmented and in random order."""
    data = recipe.data
    if training:
        check_batch_size(recipe.train.batch_size, num_images=len(images))
    augmentation = Augmentation(**data.augment.model_dump())
    size = source.image_size
    transform = train_transform(augmentation, image_size=size) if training else eval_transform(image_size=size)
    settings: dict[str, Any] = {
        "transform": transform,
        "batch_size": recipe.train.batch_size,
        "mean": source.mean,
        "std": source.std,
        "seed": recipe.seed,
        "shuffle": training,
        "drop_last": training,
        "rank": fabric.global_rank,
        "world_size": fabric.world_size,
        "mixing": batch_mixing(augmentation, num_classes=len(source.classes)) if training else None,
        "num_steps": source.num_steps,
    }
    on_device = data.on_device
    if on_device == "auto":
        reason = why_not_resident(images, transform, num_steps=source.num_steps)
        on_device = fabric.device.type == "cuda" and reason is None
    if on_device:
        return ResidentLoader(images, device=fabric.device, **settings)
    return BatchLoader(
        images, num_workers=_num_workers(data, fabric), pin_memory=fabric.device.type == "cuda", **settings
    )


def first_batch(recipe: Recipe, splits: Splits, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` training images of epoch 0 and their classes, not augmented; the same in every process."""
    source = splits.source
    loader = BatchLoader(
        splits.train,
        transform=eval_transform(image_size=source.image_size),
        batch_size=min(count, len(splits.train)),
        mean=source.mean,
        std=source.std,
        seed=recipe.seed,
        shuffle=True,
        drop_last=False,
        num_steps=source.num_steps,
    )
    return next(iter(loader.epoch(0)))


def _num_workers(data: DataConfig, fabric: Fabric) -> int:
    if data.num_workers != "auto":
        return data.num_workers
    return choose_num_workers("cuda" if fabric.device.type == "cuda" else "cpu")


def build_schedule(method: Method, branches: BranchesConfig) -> schedules.Schedule:
    """The schedule of the balance coefficient for a method."""
    if method == "vanilla":
        return schedules.Constant(value=0.0)
    if method == "shortcut":
        return schedules.Constant(value=branches.coefficient)
    if branches.schedule == "adaptive":
        return schedules.Adaptive(start=branches.share, over=branches.over, combine=branches.combine)
    if branches.schedule == "constant":
        return schedules.Constant(value=branches.start)
    settings: dict[str, Any] = branches.model_dump(include={"start", "end", "over"})
    if branches.schedule == "exponential":
        settings["rate"] = branches.rate
    if branches.schedule == "step":
        settings["num_levels"] = branches.num_levels
    return schedules.SCHEDULES[branches.schedule](**settings)


def build_loss(loss: LossConfig, branches: BranchesConfig) -> ShortcutLoss:
    """The combined loss; branches always use cross entropy, as their outputs have no time steps."""
    entropy = CrossEntropy(label_smoothing=loss.label_smoothing)
    main = entropy
    if loss.kind == "tet":
        main = TET(label_smoothing=loss.label_smoothing, weight=loss.tet_weight)
    return ShortcutLoss(main=main, branch=entropy, combine=branches.combine, branch_weights=branches.weights)


def resolve(recipe: Recipe) -> tuple[Recipe, Execution]:
    """The recipe with device and precision chosen and paths absolute, and how it runs on this machine."""
    train = recipe.train
    execution = choose_execution(
        device=train.device,
        precision=train.precision,
        channels_last=train.channels_last,
        compile=train.compile,
        memory=train.memory,
    )
    settled = train.model_copy(update={"device": execution.device, "precision": execution.precision})
    folders = {"root": recipe.data.root, "cache_dir": recipe.data.cache_dir}
    paths = {name: None if path is None else path.expanduser().resolve() for name, path in folders.items()}
    split = recipe.data.split
    if split is not None and split.endswith(".txt"):
        split = str(Path(split).expanduser().resolve())
    data = recipe.data.model_copy(update={**paths, "split": split})
    return recipe.model_copy(update={"train": settled, "data": data}), execution


def with_device_here(recipe: Recipe) -> Recipe:
    """The recipe of a finished run, moved to the CPU if it was trained on a GPU and there is none here."""
    if recipe.train.device != "cuda" or torch.cuda.is_available():
        return recipe
    log.warning("trained with train.device=cuda, and PyTorch sees no GPU here: this runs on the CPU")
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"device": "cpu"})})


class Training(NamedTuple):
    """What a `Trainer` needs from a recipe, besides network, data and machine."""

    loss: ShortcutLoss
    schedule: schedules.Schedule
    optimizer: torch.optim.Optimizer
    learning_rate: WarmupCosine
    plan: Plan


def build_training(recipe: Recipe, net: nn.Module, *, steps_per_epoch: int) -> Training:
    """Build what a recipe says about the training of a network."""
    optimizer = recipe.optimizer
    settings = optimizer.model_dump(include={"kind", "lr", "momentum", "nesterov", "weight_decay"})
    return Training(
        loss=build_loss(recipe.loss, recipe.branches),
        schedule=build_schedule(recipe.method, recipe.branches),
        optimizer=build_optimizer(net, **settings),
        learning_rate=WarmupCosine(
            peak=optimizer.lr,
            total_steps=recipe.train.epochs * steps_per_epoch,
            warmup_steps=round(optimizer.warmup_epochs * steps_per_epoch),
            final=optimizer.final_lr,
        ),
        plan=Plan(
            clip_norm=optimizer.clip_norm,
            watch_every=recipe.health.every,
            watch_samples=recipe.health.samples,
            **recipe.train.model_dump(include=_PLANNED),
        ),
    )


def check_recipe(recipe: Recipe) -> None:
    """Build everything in a recipe that needs no data.

    Raises:
        ValueError: something in the recipe is wrong.
    """
    Augmentation(**recipe.data.augment.model_dump())
    check_memory(recipe, num_parameters=_num_parameters(recipe.model))
    model = build_model(recipe.model, num_classes=10, in_channels=3)
    if recipe.method != "vanilla":
        find_places(model, "blocks" if recipe.branches.at == "auto" else recipe.branches.at)
    build_training(recipe, model, steps_per_epoch=100)


def _num_parameters(config: ModelConfig) -> int:
    """The number of parameters of a network, without allocating them."""
    with torch.device("meta"):
        try:
            return sum(p.numel() for p in build_model(config, num_classes=10, in_channels=3).parameters())
        except (RuntimeError, OverflowError) as error:  # a size too large for an integer
            raise UserError(f"model.width={config.width}: no network is that wide ({error})") from error

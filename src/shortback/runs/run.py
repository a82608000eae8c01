"""A recipe resolved on this machine, with its data: the common start of training, testing and diagnosis."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.data import BatchLoader, ImageSet
from shortback.initialization import scale_to_rate
from shortback.losses import ShortcutLoss
from shortback.recipes.build import (
    Splits,
    build_data,
    build_loader,
    build_loss,
    build_model,
    build_schedule,
    first_batch,
    resolve,
)
from shortback.recipes.schema import Recipe
from shortback.runs.folder import RunFolder, with_places
from shortback.schedules import Schedule
from shortback.shortcuts import attach
from shortback.shortcuts.auto import NUM_SAMPLES, choose_places
from shortback.spiking import SpikingNetwork
from shortback.training import Execution, build_fabric

log = logging.getLogger("shortback")
NUM_SCALING_SAMPLES = 32  # on which weights are scaled to a firing rate


@dataclass(frozen=True)
class Run:
    """A resolved recipe, its data, and the devices it runs on.

    Attributes:
        recipe: the recipe, in which all automatic choices have been made and places of branches are names.
        execution: device, precision, memory format and compilation.
        splits: the data.
        fabric: a launched `Fabric`.
        folder: folder of the run; None for a run that writes none.
    """

    recipe: Recipe
    execution: Execution
    splits: Splits
    fabric: Fabric
    folder: RunFolder | None = None

    @classmethod
    def of(cls, recipe: Recipe, *, folder: RunFolder | None = None) -> Run:
        """Resolve a recipe, load its data, and find the places of `branches.at: auto`.

        Args:
            recipe: a recipe without `compare`.
            folder: folder of the run; this function neither reads nor writes it.

        Raises:
            ValueError: a mistake in the recipe or the data.
        """
        recipe, execution = resolve(recipe)
        splits = build_data(recipe.data, num_steps=recipe.model.num_steps, seed=recipe.seed)
        return cls(_placed(recipe, splits), execution, splits, build_fabric(execution), folder)

    def build_model(self) -> SpikingNetwork:
        """Build the network, without branches."""
        return _model(self.recipe, self.splits)

    def build_network(self) -> tuple[SpikingNetwork, nn.Module]:
        """Build the network, initialised from the seed; return it, and the same with the branches of its method."""
        model = _initial_model(self.recipe, self.splits, warns=True)
        if self.recipe.loss.kind == "tet":
            model.readout = "steps"
        if self.recipe.method == "vanilla":
            return model, model
        return model, attach(model, at=self.recipe.branches.at, sample=torch.zeros(self.splits.source.batch_shape(2)))

    def loader(self, images: ImageSet, *, training: bool) -> BatchLoader:
        """Batches of a split; for training, augmented and in random order."""
        return build_loader(images, self.recipe, self.splits.source, training=training, fabric=self.fabric)

    def first_batch(self, count: int) -> tuple[Tensor, Tensor]:
        """The first training images and their classes, not augmented, on the device."""
        return self.fabric.to_device(first_batch(self.recipe, self.splits, count))

    @property
    def loss(self) -> ShortcutLoss:
        return build_loss(self.recipe.loss, self.recipe.branches)

    @property
    def schedule(self) -> Schedule:
        return build_schedule(self.recipe.method, self.recipe.branches)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch; a last batch that is not full is dropped."""
        return len(self.splits.train) // self.recipe.train.batch_size


def _model(recipe: Recipe, splits: Splits) -> SpikingNetwork:
    source = splits.source
    return build_model(recipe.model, num_classes=len(source.classes), in_channels=source.in_channels)


def _initial_model(recipe: Recipe, splits: Splits, *, warns: bool) -> SpikingNetwork:
    """The network that training starts from: drawn from the seed, and scaled to `model.firing_rate` if that is set.

    Args:
        warns: whether to warn of layers that could not be scaled.
    """
    torch.manual_seed(recipe.seed)
    model = _model(recipe, splits)
    if recipe.model.firing_rate is not None:
        x, _ = first_batch(recipe, splits, NUM_SCALING_SAMPLES)
        for layer in scale_to_rate(model, x, firing_rate=recipe.model.firing_rate).layers:
            if layer.left is not None and warns:
                log.warning("model.firing_rate: the weights before %s are not scaled: %s", layer.neurons, layer.left)
    return model


def _placed(recipe: Recipe, splits: Splits) -> Recipe:
    """The recipe with `branches.at: auto` replaced by names of places, chosen by measuring the untrained network."""
    if recipe.branches.at != "auto" or recipe.method == "vanilla":
        return recipe
    model = _initial_model(recipe, splits, warns=False)
    x, _ = first_batch(recipe, splits, NUM_SAMPLES)
    loss = build_loss(recipe.loss, recipe.branches)
    beginning = build_schedule(recipe.method, recipe.branches)(0.0)
    return with_places(recipe, choose_places(model, x, loss=loss, coefficient=beginning or 1.0))

"""A recipe's training taken apart: the same network, data, loss and optimizer, without the trainer around them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from shortback.build import Splits, build_data, build_fabric, build_loader, build_training, resolve
from shortback.config import Recipe
from shortback.experiment import build_network
from shortback.health import branch_share
from workloads import autocast


class Job:
    """The first batch of a recipe, ready to be trained on.

    Args:
        recipe: one without `compare`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.execution = resolve(recipe)
        self.splits: Splits = build_data(self.recipe.data, seed=self.recipe.seed)
        fabric = build_fabric(self.execution)
        loader = build_loader(self.splits.train, self.recipe, self.splits.source, training=True, fabric=fabric)
        x, y = next(iter(loader.epoch(0)))
        self.x, self.y = x.to(fabric.device), y.to(fabric.device)
        self.device = fabric.device

    def build(self) -> None:
        """Make the network, its branches and the optimizer."""
        torch.manual_seed(self.recipe.seed)
        _, net = build_network(self.recipe, self.splits)
        self.net = net.to(self.device).train()
        self.run: nn.Module = self.execution.prepare(self.net)
        parts = build_training(self.recipe, self.net, steps_per_epoch=100)
        self.loss, self.optimizer = parts["loss"], parts["optimizer"]

    def begin_epoch(self) -> None:
        """What the trainer measures before the first step of an epoch."""
        with autocast(self.execution):
            branch_share(self.net, self.x, self.y, loss=self.loss, coefficient=0.5)

    def step(self) -> Tensor:
        """One optimizer step; returns the loss."""
        with autocast(self.execution):
            outputs = self.run(self.x)
        loss = self.loss(outputs, self.y, coefficient=0.5).total
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

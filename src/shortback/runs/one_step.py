"""A recipe's training taken apart: the same network, data, loss and optimizer, without the trainer around them.

For what a step takes, before or beside a training.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from shortback.health import branch_share
from shortback.recipes.build import Splits, build_data, build_loader, build_training, resolve
from shortback.recipes.schema import Recipe
from shortback.runs.train import build_network, place_branches
from shortback.training import build_fabric


class Rehearsal:
    """The first batch of a recipe, ready to be trained on.

    Args:
        recipe: one without `compare`.
    """

    def __init__(self, recipe: Recipe) -> None:
        recipe, self.execution = resolve(recipe)
        self.splits: Splits = build_data(recipe.data, seed=recipe.seed)
        self.recipe = place_branches(recipe, self.splits)
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
        with self._autocast():
            branch_share(self.net, self.x, self.y, loss=self.loss, coefficient=0.5)

    def step(self) -> Tensor:
        """One optimizer step; returns the loss."""
        parts = self.recipe.train.accumulate
        total = torch.zeros((), device=self.device)
        for x, y in zip(self.x.chunk(parts), self.y.chunk(parts), strict=True):
            with self._autocast():
                outputs = self.run(x)
            loss = self.loss(outputs, y, coefficient=0.5).total / parts
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.execution.device, torch.bfloat16, enabled=self.execution.precision == "bf16")


def seconds_a_step(recipe: Recipe, *, jobs: int = 1, steps: int = 2) -> tuple[float, int]:
    """How long a step of a recipe takes, the median of some after two that compile, and how many steps it has.

    With `jobs` side by side it has its share of the threads.
    """
    rehearsal = Rehearsal(recipe)
    rehearsal.build()
    laps, threads = [], torch.get_num_threads()
    torch.set_num_threads(max(1, threads // jobs))
    try:
        for _ in range(2 + steps):
            start = time.perf_counter()
            rehearsal.step()
            if rehearsal.device.type == "cuda":
                torch.cuda.synchronize()
            laps.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    per_epoch = len(rehearsal.splits.train) // recipe.train.batch_size
    return statistics.median(laps[2:]), per_epoch * recipe.train.epochs

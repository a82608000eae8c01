"""A recipe's training taken apart: the same network, data, loss and optimizer, without the trainer around them.

For what a step takes, before or beside a training.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from shortback.health import branch_share
from shortback.inspection.untouched import in_training
from shortback.recipes.build import build_training
from shortback.recipes.schema import Recipe
from shortback.runs.run import Run
from shortback.training.batches import in_parts


class Rehearsal:
    """The first batch of a recipe, ready to be trained on.

    Args:
        recipe: one without `compare`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._run = Run.of(recipe)
        self.recipe, self.execution, self.splits = self._run.recipe, self._run.execution, self._run.splits
        self.device = self._run.fabric.device
        loader = self._run.loader(self.splits.train, training=True)
        x, y = next(iter(loader.epoch(0)))
        self.x, self.y = x.to(self.device), y.to(self.device)

    def build(self) -> None:
        """Make the network, its branches and the optimizer."""
        _, net = self._run.build_network()
        self.net = in_training(net.to(self.device))
        self.run: nn.Module = self.execution.prepare(self.net)
        parts = build_training(self.recipe, self.net, steps_per_epoch=100)
        self.loss, self.optimizer = parts.loss, parts.optimizer

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self._run.steps_per_epoch * self.recipe.train.epochs

    def begin_epoch(self) -> None:
        """What the trainer measures before the first step of an epoch."""
        with self._autocast():
            branch_share(self.net, self.x, self.y, loss=self.loss, coefficient=0.5)

    def step(self) -> Tensor:
        """One optimizer step; returns the loss."""
        total = torch.zeros((), device=self.device)
        for x, y in in_parts(self.net, self.x, self.y, self.recipe.train.accumulate):
            with self._autocast():
                outputs = self.run(x)
            loss = self.loss(outputs, y, coefficient=0.5).total * (len(y) / len(self.y))
            loss.backward()
            total += loss.detach()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.execution.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.execution.device, dtype, enabled=self.execution.precision != "fp32")


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
    return statistics.median(laps[2:]), rehearsal.num_steps

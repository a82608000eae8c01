"""Run single training steps of a recipe, with the same network, data, loss and optimizer but without the trainer.

Used to measure the cost of a step without training.
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
from shortback.training.batches import split_batch


class Rehearsal:
    """Training steps of a recipe on its first batch; call `build` before the first step.

    Args:
        recipe: a recipe without `compare`.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._run = Run.of(recipe)
        self.recipe, self.execution, self.splits = self._run.recipe, self._run.execution, self._run.splits
        self.device = self._run.fabric.device
        loader = self._run.loader(self.splits.train, training=True)
        x, y = next(iter(loader.epoch(0)))
        self.x, self.y = x.to(self.device), y.to(self.device)

    def build(self) -> None:
        """Build the network, its branches, the loss and the optimizer."""
        _, net = self._run.build_network()
        self.net = in_training(net.to(self.device))
        self.run: nn.Module = self.execution.prepare(self.net)
        parts = build_training(self.recipe, self.net, steps_per_epoch=100)
        self.loss, self.optimizer = parts.loss, parts.optimizer

    @property
    def num_steps(self) -> int:
        """The number of optimizer steps of the whole training."""
        return self._run.steps_per_epoch * self.recipe.train.epochs

    def begin_epoch(self) -> None:
        """Measure what the trainer measures before the first step of an epoch."""
        with self._autocast():
            branch_share(self.net, self.x, self.y, loss=self.loss, coefficient=0.5)

    def step(self) -> Tensor:
        """Take one optimizer step, and return the loss."""
        total = torch.zeros((), device=self.device)
        for x, y in split_batch(self.net, self.x, self.y, self.recipe.train.accumulate):
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
    """Measure the duration of a training step of a recipe.

    Args:
        jobs: number of runs side by side; the step gets its share of the threads.
        steps: number of steps to time, after two that compile.

    Returns:
        The median seconds per step, and the number of steps of the whole training.
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

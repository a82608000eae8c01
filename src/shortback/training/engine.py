"""The training loop: `Trainer.fit` runs it; the methods below are its steps, in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.health import branch_share, settled_ratio
from shortback.inspection.reset import explaining_stale_graph, reset_states, without_states
from shortback.losses import ShortcutLoss
from shortback.schedules import Schedule, as_schedule
from shortback.shortcuts import ShortcutNetwork
from shortback.training._evaluate import evaluate, outputs_of
from shortback.training.average import WeightAverage
from shortback.training.batches import Batches, split_batch, warn_if_short
from shortback.training.best import BestWeights
from shortback.training.checkpoint import CheckpointFolder
from shortback.training.execution import Execution
from shortback.training.finite import FiniteCheck
from shortback.training.given import NetworkInTraining
from shortback.training.gradient import Gradient
from shortback.training.hangs import HangWatch
from shortback.training.identity import check_same, identity_of
from shortback.training.loggers import Logger, logging_to
from shortback.training.optim import check_optimizer, shares_of_groups
from shortback.training.outcome import FitResult
from shortback.training.plan import Plan
from shortback.training.preflight import Preflight
from shortback.training.signals import Interrupted, StopRequest, agreed
from shortback.training.state import BatchSums, Sums, TrainState, branch_means, random_states, set_random_state, sums_of
from shortback.training.stateful_loss import load_states_of_loss, states_of_loss
from shortback.training.sync_norm import local_norms
from shortback.training.watch import GradientWatch
from shortback.training.weighing import check_parts, share_of_batch, weight_of, zero_gradient_without_weight


class Trainer:
    """Trains a network with or without shortcut branches.

    Args:
        net: what `attach` returned, or a network without branches that returns logits.
        train: batches of the training split.
        validation: the split that selects the best weights; without it, the last weights are kept.
        loss: the loss of outputs, classes and coefficient.
        schedule: the balance coefficient as a function of progress in [0, 1], evaluated at every step.
        optimizer: an optimizer over the parameters of `net`.
        learning_rate: the learning rate as a function of the optimizer step, from 0. It applies to the parameter group
            with the largest `lr`; the other groups keep their ratio to it.
        plan: the numbers of the training.
        execution: device, memory format and compilation.
        fabric: a launched Fabric, with precision and processes.
        folder: where checkpoints are written.
        loggers: receive rows of numbers; pass them in the first process only.
        identity: what else a run must have in common with a checkpoint to be resumed from it, as plain values.

    Raises:
        ValueError: see `Plan.check_validation`, `check_optimizer`, `Schedule.check_combine` and `check_parts`.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        train: Batches,
        validation: Batches | None,
        loss: ShortcutLoss,
        schedule: Schedule | Callable[[float], float] | float,
        optimizer: torch.optim.Optimizer,
        learning_rate: Callable[[int], float],
        plan: Plan,
        execution: Execution,
        fabric: Fabric,
        folder: Path,
        loggers: Sequence[Logger] = (),
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.net, self.train, self.validation = net, train, validation
        self.loss, self.schedule, self.learning_rate, self.plan = loss, as_schedule(schedule), learning_rate, plan
        self.execution, self.fabric, self.loggers = execution, fabric, loggers
        self.checkpoints, self.best = CheckpointFolder(folder), BestWeights(folder, keep=plan.keep_best)
        plan.check_validation(validation is not None)
        check_optimizer(optimizer, net)
        for part in (loss.main, loss.branch):
            if isinstance(part, nn.Module):
                part.to(fabric.device)  # class weights
        if isinstance(net, ShortcutNetwork):
            self.schedule.check_combine(loss.combine)
            check_parts(loss, plan.accumulate)
        self.given = NetworkInTraining(net, execution=execution, fabric=fabric)
        with self.given.put_back_after_an_error():
            self.module = self.given.prepare()
            self.has_states = reset_states(net) > 0
            self.average = None if plan.ema is None else WeightAverage(net, decay=plan.ema)
            self.learning_rate_shares = shares_of_groups(optimizer)
            chosen: dict[str, Any] = {"loss": loss, "schedule": self.schedule, "learning_rate": learning_rate}
            self.identity = {**identity_of(net, train, optimizer, plan=plan, **chosen), **(identity or {})}
            self.gradient = Gradient(net, optimizer, fabric)
            self.optimizer = cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer))
        self.watch = GradientWatch(net, loss=loss, every=plan.watch_every, num_samples=plan.watch_samples)
        self.finite = FiniteCheck(net, later=fabric.device.type != "cpu", clip_norm=plan.clip_norm)
        self.preflight, self.hangs = Preflight(net, loss=loss, fabric=fabric), HangWatch(plan.hang_minutes)
        self.state, self.row_sums, self.was_short, self.has_branches = TrainState(), Sums(), False, False
        self.tick, self.total_steps = time.perf_counter(), plan.epochs * len(train)

    def fit(self, *, resume: bool = False) -> FitResult:
        """Train to the end, load the best weights, and undo other changes (`NetworkInTraining.put_back`).

        Args:
            resume: whether to continue, bit for bit, from the newest checkpoint, if there is one.

        Raises:
            NonFiniteError: the loss or the gradient is no longer finite.
            Interrupted: a signal was received, see `StopRequest`; a checkpoint was written.
            CheckpointError: a checkpoint could not be written or read.
        """
        self.net.zero_grad()  # drop gradients from before the training
        with self.given.put_back_after_an_error():
            if resume:
                self._restore()
            state = self.state
            so_far = {"step": state.step, "epoch_end": state.step - state.batch}
            with logging_to(self.loggers, **so_far, total_steps=self.total_steps):
                self._train()
        self.given.put_back()
        self.best.load_into(self.net)
        self.fabric.barrier()
        return FitResult.of(state)

    def _train(self) -> None:
        """Run the remaining epochs."""
        state, self.tick = self.state, time.perf_counter()
        with StopRequest() as stop, self.hangs:
            while not self.plan.is_over(state.epoch, best_epoch=state.best_epoch):
                for x, y in self.hangs.over(self.train.epoch(state.epoch, start=state.batch), "training"):
                    self._step(*self.fabric.to_device((x, y)))
                    stopping = agreed(stop.received, self.fabric, step=state.step)
                    if stopping or self.plan.saves_after(state.step):
                        self._save()
                    if stopping:
                        raise Interrupted(stopping)
                self._finish_epoch()
                if stopping := agreed(stop.received, self.fabric):  # a signal during validation
                    raise Interrupted(stopping)

    def _step(self, x: Tensor, y: Tensor) -> None:
        """Take and log one optimizer step."""
        self.preflight.check(x, y)
        state = self.state
        if self.schedule.is_zero_from(state.step / self.total_steps):
            self.module = self.given.drop_branches() or self.module
        with nullcontext() if self.gradient.is_scaled else self.fabric.autocast():  # small gradients would be 0 in fp16
            coefficient = state.coefficient = self._look(x, y)
        learning_rate = self.learning_rate(state.step)
        for group, share in zip(self.optimizer.param_groups, self.learning_rate_shares, strict=True):
            group["lr"] = share * learning_rate

        row_is_due = (state.step + 1) % self.plan.log_every == 0
        sums = self._forward_backward(x, y, coefficient, by_branch=row_is_due)
        coefficient = state.coefficient = coefficient if self.has_branches else 0.0
        norm = self.gradient.norm(clip=self.plan.clip_norm)
        with self.fabric.autocast():
            self.finite.look(x, step=state.step + 1, loss=sums.mean_loss, norm=norm, coefficient=coefficient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.net.zero_grad()  # an optimizer of the user's may leave out some parameters
        if self.average is not None:
            self.average.update(self.net)

        state.step, state.batch = state.step + 1, state.batch + 1
        state.images += len(y) * self.fabric.world_size
        seconds = self._lap()
        state.step_seconds += seconds
        for each in (state.epoch_sums, self.row_sums):
            each.add(sums.whole)
            each.seconds += seconds
        for logger in self.loggers:
            logger.advance(state.step)
        if row_is_due:
            self.gradient.check(state.step)
            self.finite.finish()
            measured: dict[str, Any] = {"learning_rate": learning_rate, "gradient_norm": norm.item()}
            if sums.branches.numel() and isinstance(self.net, ShortcutNetwork):
                measured["branches"] = branch_means(sums, self.net.places, self.fabric)
            self._log("step", **self.row_sums.means(self.fabric), coefficient=coefficient, **measured)
            self.row_sums = Sums()

    def _look(self, x: Tensor, y: Tensor) -> float:
        """Run the measurements due before a step, on the first process alone; returns the step's coefficient."""
        state, is_due = self.state, self.watch.is_due(self.state.step) and len(y) > 1
        can_branch = isinstance(self.net, ShortcutNetwork) and self.net.branches_enabled
        adapts = can_branch and self.schedule.measures and (is_due or state.batch == 0)
        if self.fabric.is_global_zero and (is_due or state.batch == 0):
            parts = split_batch(self.net, x, y, self.plan.accumulate)
            part = next((each for each in parts if weight_of(each[1], loss=self.loss.main)), None)  # with a label
            with local_norms(self.net):
                if adapts and part:
                    at, ratio = self._coefficient_at, state.main_over_branches
                    ratio = settled_ratio(self.net, *part, loss=self.loss, coefficient_of=at, ratio=ratio)
                    state.main_over_branches = ratio
                coefficient = self._coefficient()
                if state.batch == 0 and part and isinstance(self.net, ShortcutNetwork):
                    state.branch_share = branch_share(self.net, *part, loss=self.loss, coefficient=coefficient)
                if is_due and part:
                    self._log("health", step=state.step + 1, **self.watch.look(x, y, coefficient=coefficient))
        if adapts:
            state.main_over_branches = self.fabric.broadcast(state.main_over_branches)
        return self._coefficient()

    def _coefficient(self) -> float:
        return self._coefficient_at(self.state.main_over_branches)

    def _coefficient_at(self, main_over_branches: float) -> float:
        return float(self.schedule(self.state.step / self.total_steps, main_over_branches))

    def _forward_backward(self, x: Tensor, y: Tensor, coefficient: float, *, by_branch: bool) -> BatchSums:
        """Compute the gradient of a batch, part by part; returns the sums to log."""
        parts, whole = split_batch(self.net, x, y, self.plan.accumulate), weight_of(y, loss=self.loss.main)
        sums: list[BatchSums] = []
        for xs, ys in parts:
            more_to_come = self.fabric.world_size > 1 and len(sums) < len(parts) - 1
            with self.fabric.no_backward_sync(self.module) if more_to_come else nullcontext():
                if self.has_states:
                    reset_states(self.net)
                outputs, weight = outputs_of(self.module(xs), self.preflight.layout), weight_of(ys, loss=self.loss.main)
                self.has_branches = not isinstance(outputs, Tensor) and len(outputs.branches) > 0
                zero_gradient_without_weight(outputs, weight)
                terms = self.loss(outputs, ys, coefficient=coefficient, by_branch=by_branch)
                with explaining_stale_graph():
                    self.fabric.backward(terms.total * share_of_batch(weight, whole))
            with torch.no_grad():
                combined = self.loss.combined_logits(outputs, coefficient=coefficient)
            sums.append(sums_of(outputs, combined, ys, terms, loss=self.loss))
        return BatchSums(*(torch.stack(each).sum(0) for each in zip(*sums, strict=True)))

    def _finish_epoch(self) -> None:
        """Validate, keep the weights if they are the best, log, and write a checkpoint."""
        self.finite.finish()
        state, result = self.state, None
        self.was_short = self.was_short or warn_if_short(self.train, state.batch)
        evaluated: nn.Module = self.net if self.average is None else self.average.module
        if self.validation is not None:
            batches = self.hangs.over(self.validation.epoch(0), "validation")
            result = evaluate(evaluated, batches, loss=self.loss.main, fabric=self.fabric)
            self.watch.warn_if_constant(evaluated, result, batches=self.validation, fabric=self.fabric)
        self.best.record(state, result)
        if self.fabric.is_global_zero:
            self.best.save(evaluated, state)
        scores = {"val_accuracy": result and result.accuracy, "val_loss": result and result.loss}
        state.seconds += self._lap()
        so_far = {"branch_share": state.branch_share, "seconds": state.all_seconds}
        self._log("epoch", **state.epoch_sums.means(self.fabric), coefficient=state.coefficient, **so_far, **scores)
        state.epoch, state.batch, state.epoch_sums = state.epoch + 1, 0, Sums()
        self._save()

    def _log(self, kind: str, **measured: Any) -> None:
        row = {"kind": kind, "step": self.state.step, "epoch": self.state.epoch + 1, **measured}
        for logger in self.loggers:
            logger.log(row)

    def _lap(self) -> float:
        """Seconds since the last call."""
        before, self.tick = self.tick, time.perf_counter()
        return self.tick - before

    def _save(self) -> None:
        self.finite.finish()
        reset_states(self.net)  # as before every batch: a state has the size of the last one
        random = random_states(self.fabric)
        if self.fabric.is_global_zero:
            content: dict[str, Any] = {
                "net": without_states(self.net),
                "average": {} if self.average is None else self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "random": random,
                "state": self.state.to_dict(),
                "row_sums": self.row_sums.to_dict(),
                "identity": self.identity,
                "gradient": self.gradient.state_dict(),
                "loss": states_of_loss(self.loss),
            }
            self.checkpoints.save(content)
        self.fabric.barrier()
        self.state.seconds += self._lap()

    def _restore(self) -> None:
        content = self.checkpoints.load()
        if content is None:
            return
        reset_states(self.net)
        check_same(content, self.identity, self.net, folder=self.checkpoints.folder.parent)
        self.net.load_state_dict(content["net"], strict=False)
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        set_random_state(content["random"], self.fabric)
        self.state = TrainState.from_dict(content["state"])
        self.row_sums = Sums.from_dict(content["row_sums"])
        if "gradient" in content:  # earlier versions did not save it
            self.gradient.load_state_dict(content["gradient"])
        load_states_of_loss(self.loss, content.get("loss", []))

"""The weights of the best epochs so far, by what the validation images say."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from shortback.inspection.reset import without_states
from shortback.inspection.trunk import Branched, trunk_of
from shortback.processes import is_first
from shortback.training._evaluate import Evaluation
from shortback.training.checkpoint import save_weights
from shortback.training.state import TrainState

log = logging.getLogger("shortback")


class BestWeights:
    """Kept in files beside the checkpoints: `best.safetensors`, the heads of branches in `best-heads.safetensors`,
    and if more than one epoch is kept `best-epoch-12.safetensors` and the like.

    Args:
        folder: of the run.
        keep: how many epochs' weights; of equal ones the earlier.
    """

    def __init__(self, folder: Path, *, keep: int = 1) -> None:
        self.file, self.heads, self.keep = folder / "best.safetensors", folder / "best-heads.safetensors", keep

    def is_improved(self, state: TrainState, result: Evaluation | None) -> bool:
        """Whether the epoch that ends is the best, which is noted in the state, with those that are kept beside it.

        By accuracy; by loss in a regression, which has none; always without validation images, and where no loss of
        them was a number so far.
        """
        epoch = state.epoch + 1
        if result is None:
            state.best_epoch = epoch
            return True
        loss = result.loss if math.isfinite(result.loss) else math.inf
        if loss == math.inf and is_first():
            log.warning(
                "epoch %d: the loss on the validation split is %s: look at its inputs and targets", epoch, result.loss
            )
        score = -loss if result.accuracy is None else result.accuracy
        state.kept = sorted([*state.kept, (epoch, score)], key=lambda kept: (-kept[1], kept[0]))[: self.keep]
        if result.accuracy is None:
            improved = loss < state.best_loss or state.best_loss == math.inf
        else:
            improved = result.accuracy > state.best_accuracy
        if improved:
            state.best_accuracy = state.best_accuracy if result.accuracy is None else result.accuracy
            state.best_loss, state.best_epoch = loss, epoch
        return improved

    def save(self, net: nn.Module, state: TrainState) -> None:
        """Write the weights of the epoch that ends wherever it is among the best, and delete those that are no more."""
        epoch = state.epoch + 1
        files = [self.file] if state.best_epoch == epoch else []
        if self.keep > 1:
            kept = [self._file_of(number) for number, _ in state.kept]
            files += [self._file_of(epoch)] if self._file_of(epoch) in kept else []
            for file in self.file.parent.glob("best-epoch-*.safetensors"):
                if file not in kept:
                    file.unlink()
        if not files:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        weights = without_states(trunk_of(net))
        for file in files:
            save_weights(file, weights)
        if self.file in files and isinstance(net, Branched):
            save_weights(self.heads, net.heads.state_dict())

    def load_into(self, net: nn.Module) -> None:
        """Put the best weights into a network, and into the heads of its branches."""
        trunk_of(net).load_state_dict(load_file(self.file), strict=False)
        if isinstance(net, Branched) and self.heads.exists():  # an earlier version kept none
            net.heads.load_state_dict(load_file(self.heads))

    def _file_of(self, epoch: int) -> Path:
        return self.file.with_name(f"best-epoch-{epoch}.safetensors")

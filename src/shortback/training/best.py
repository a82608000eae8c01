"""Keep the weights of the best epochs so far, as judged on the validation split."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from shortback.inspection.reset import reset_states, without_states
from shortback.inspection.trunk import Branched, trunk_of
from shortback.processes import is_first
from shortback.training._evaluate import Evaluation
from shortback.training.checkpoint import save_weights
from shortback.training.state import TrainState

log = logging.getLogger("shortback")


class BestWeights:
    """Files with the best weights, beside the checkpoints.

    These are `best.safetensors`, `best-heads.safetensors` with the heads of the branches, and, if more than one epoch
    is kept, `best-epoch-12.safetensors` and so on.

    Args:
        folder: folder of the checkpoints.
        keep: number of epochs whose weights are kept; ties go to the earlier epoch.
    """

    def __init__(self, folder: Path, *, keep: int = 1) -> None:
        self.file, self.heads, self.keep = folder / "best.safetensors", folder / "best-heads.safetensors", keep

    def record(self, state: TrainState, result: Evaluation | None) -> bool:
        """Record the epoch that just ended in `state`, with the list of kept epochs; returns whether it is the best.

        Epochs are compared by accuracy, or by loss in a regression. The result is always True without validation,
        and in a regression until an epoch has had a finite loss.
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
        """Write the weights of the epoch that just ended if it is among the best, and delete those displaced."""
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
        reset_states(net)  # a state has the size of the last batch
        weights = without_states(trunk_of(net))
        for file in files:
            save_weights(file, weights)
        if self.file in files and isinstance(net, Branched):
            save_weights(self.heads, net.heads.state_dict())

    def load_into(self, net: nn.Module) -> None:
        """Load the best weights into a network, and into the heads of its branches."""
        reset_states(net)
        trunk_of(net).load_state_dict(load_file(self.file), strict=False)
        if isinstance(net, Branched) and self.heads.exists():  # earlier versions did not save them
            net.heads.load_state_dict(load_file(self.heads))

    def _file_of(self, epoch: int) -> Path:
        return self.file.with_name(f"best-epoch-{epoch}.safetensors")

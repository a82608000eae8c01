"""The weights of the best epochs so far, by what the validation images say."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from shortback.inspection.reset import without_states
from shortback.inspection.trunk import trunk_of
from shortback.training._evaluate import Evaluation
from shortback.training.checkpoint import save_weights
from shortback.training.state import TrainState


class BestWeights:
    """Kept in files beside the checkpoints: `best.safetensors`, and if more than one is kept
    `best-epoch-12.safetensors` and the like.

    Args:
        folder: of the run.
        keep: how many epochs' weights; of equal ones the earlier.
    """

    def __init__(self, folder: Path, *, keep: int = 1) -> None:
        self.file, self.keep = folder / "best.safetensors", keep

    def is_improved(self, state: TrainState, result: Evaluation | None) -> bool:
        """Whether the epoch that ends is the best, which is noted in the state, with those that are kept beside it.

        By accuracy; by loss in a regression, which has none; always without validation images.
        """
        epoch = state.epoch + 1
        if result is None:
            state.best_epoch = epoch
            return True
        score = -result.loss if result.accuracy is None else result.accuracy
        state.kept = sorted([*state.kept, (epoch, score)], key=lambda kept: (-kept[1], kept[0]))[: self.keep]
        if result.accuracy is None:
            improved = result.loss < state.best_loss
        else:
            improved = result.accuracy > state.best_accuracy
        if improved:
            state.best_accuracy = state.best_accuracy if result.accuracy is None else result.accuracy
            state.best_loss, state.best_epoch = result.loss, epoch
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

    def load_into(self, net: nn.Module) -> None:
        trunk_of(net).load_state_dict(load_file(self.file), strict=False)

    def _file_of(self, epoch: int) -> Path:
        return self.file.with_name(f"best-epoch-{epoch}.safetensors")

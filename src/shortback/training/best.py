"""The weights of the best epoch so far, by what the validation images say."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from shortback.inspection.reset import without_states
from shortback.inspection.trunk import trunk_of
from shortback.training._evaluate import Evaluation
from shortback.training.checkpoint import writing
from shortback.training.state import TrainState


class BestWeights:
    """Kept in a file beside the checkpoints.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "best.safetensors"

    def is_improved(self, state: TrainState, result: Evaluation | None) -> bool:
        """Whether the epoch that ends is the best, which is noted in the state.

        By accuracy; by loss in a regression, which has none; always without validation images.
        """
        if result is None:
            return True
        if result.accuracy is None:
            improved = result.loss < state.best_loss
        else:
            improved = result.accuracy > state.best_accuracy
        if improved:
            state.best_accuracy = state.best_accuracy if result.accuracy is None else result.accuracy
            state.best_loss, state.best_epoch = result.loss, state.epoch + 1
        return improved

    def save(self, net: nn.Module) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in without_states(trunk_of(net)).items()}
        with writing(self.file) as path:
            save_file(weights, path)

    def load_into(self, net: nn.Module) -> None:
        trunk_of(net).load_state_dict(load_file(self.file), strict=False)

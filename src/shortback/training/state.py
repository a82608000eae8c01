"""What a run has to remember to go on exactly where it was."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from shortback.losses import LossTerms, Outputs, mean_over_time


@dataclass
class Sums:
    """Sums over the images of an epoch, or between two rows, kept on the device until they are read.

    Attributes:
        values: `[4]`: loss, loss of the main output, images classified right, images; of this process.
        seconds: the steps took.
    """

    values: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    seconds: float = 0.0

    def add(self, sums: Tensor) -> None:
        """Add the `[4]` sums of one step."""
        self.values = self.values.to(sums.device) + sums

    def means(self, fabric: Fabric) -> dict[str, float]:
        """Mean loss, mean loss of the main output, accuracy and speed, over all processes."""
        values = fabric.all_reduce(self.values, reduce_op="sum")
        assert isinstance(values, Tensor)
        loss, main, correct, count = values.tolist()
        return {
            "loss": loss / count,
            "main_loss": main / count,
            "accuracy": correct / count,
            "images_per_second": count / self.seconds,
        }

    def to_dict(self) -> dict[str, Any]:
        return {"values": self.values.cpu(), "seconds": self.seconds}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Sums:
        return cls(**content)


def sums_of(outputs: Outputs | Tensor, target: Tensor, terms: LossTerms) -> Tensor:
    """What `Sums` adds up, of one batch: loss and main loss over the images, images classified right, images."""
    logits = mean_over_time(outputs if isinstance(outputs, Tensor) else outputs.logits.detach())
    classes = target if target.ndim == 1 else target.argmax(1)
    correct = (logits.argmax(1) == classes).sum()
    count = len(target)
    sums = [terms.total.detach() * count, terms.main.detach() * count, correct, correct.new_tensor(count)]
    return torch.stack([value.double() for value in sums])


@dataclass
class TrainState:
    """Progress of a run.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        batch: batches done of the epoch that follows.
        images: seen by all processes.
        step_seconds: the steps took.
        seconds: what came besides them took: validation and checkpoints.
        best_accuracy: on the validation split, or -1.
        branch_share: of the branches in the first layer's gradient, measured at the start of the epoch.
        main_over_branches: norms of the first layer's gradient, measured last; used by the adaptive schedule.
        epoch_sums: over the batches done of the epoch.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    images: int = 0
    step_seconds: float = 0.0
    seconds: float = 0.0
    best_accuracy: float = -1.0
    branch_share: float | None = None
    main_over_branches: float = 1.0
    epoch_sums: Sums = field(default_factory=Sums)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "epoch_sums": self.epoch_sums.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> TrainState:
        return cls(**{**content, "epoch_sums": Sums.from_dict(content["epoch_sums"])})


def random_state() -> dict[str, Any]:
    """The state of PyTorch's generators."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])

"""What a run has to remember to go on exactly where it was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from shortback.losses import ShortcutLoss, mean_over_time
from shortback.outputs import LossTerms, Outputs
from shortback.training.weighing import hits_of, num_counted, sum_of, weight_of


@dataclass
class Sums:
    """Sums over the images of an epoch, or between two rows, kept on the device until they are read.

    Attributes:
        values: `[7]`: loss, loss of the main output, images that the main output classifies right, those that the sum
            of logits does, images, those whose label counts, and what the losses are weighed by; of this process.
        seconds: the steps took.
    """

    values: Tensor = field(default_factory=lambda: torch.zeros(7, dtype=torch.float64))
    seconds: float = 0.0

    def add(self, sums: Tensor) -> None:
        """Add the `[7]` sums of one step."""
        self.values = self.values.to(sums.device) + sums

    def means(self, fabric: Fabric) -> dict[str, float | None]:
        """Means over the images of all processes, as the loss weighs them, and the speed.

        `loss` and `sum_accuracy` are of what is trained, `main_loss` and `accuracy` of the main output, which is what
        inference has. A regression has no accuracy, nor has a row in which no label counts; its loss is 0.
        """
        values = fabric.all_reduce(self.values, reduce_op="sum")
        assert isinstance(values, Tensor)
        loss, main, correct, sum_correct, images, count, weight = values.tolist()
        return {
            "loss": loss / (weight or 1),
            "main_loss": main / (weight or 1),
            "accuracy": number_or_none(correct / (count or math.nan)),
            "sum_accuracy": number_or_none(sum_correct / (count or math.nan)),
            "images_per_second": images / self.seconds,
        }

    def to_dict(self) -> dict[str, Any]:
        return {"values": self.values.cpu(), "seconds": self.seconds}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Sums:
        values = content["values"]
        if len(values) == 4:  # of a checkpoint from before logits were added up: the sum was the main output
            values = values[[0, 1, 2, 2, 3]]
        if len(values) == 5:  # of one from before labels were ignored
            values = values[[0, 1, 2, 3, 4, 4, 4]]
        return cls(values, content["seconds"])


class BatchSums(NamedTuple):
    """Sums over the images of a batch: what `Sums` adds up, `[7]`, and of each branch its loss and hits, `[2, B]`."""

    whole: Tensor
    branches: Tensor

    @property
    def mean_loss(self) -> Tensor:
        """0 where no label counts."""
        return (self.whole[0] / self.whole[6]).where(self.whole[6] != 0, 0)


@torch.no_grad()
def sums_of(
    outputs: Outputs | Tensor, combined: Tensor, target: Tensor, terms: LossTerms, *, loss: ShortcutLoss
) -> BatchSums:
    """The sums of one batch; of branches only those whose own loss is among the terms. Hits are NaN in a regression.

    Args:
        combined: what `ShortcutLoss.combined_logits` makes of the outputs.
    """
    outputs = Outputs(outputs, {}) if isinstance(outputs, Tensor) else outputs
    weight = weight_of(target, loss=loss.main)

    def hits(logits: Tensor) -> Tensor:
        return hits_of(mean_over_time(logits), target, loss=loss.main)

    def number(value: Tensor | int) -> Tensor:
        return torch.full_like(terms.total, value, dtype=torch.float64) if isinstance(value, int) else value.double()

    whole = [sum_of(terms.total, weight), sum_of(terms.main, weight), hits(outputs.logits), hits(combined)]
    whole += [len(target), num_counted(target, loss=loss.main), weight]
    branches = [[sum_of(each, weight), hits(outputs.branches[name])] for name, each in terms.branches.items()]
    return BatchSums(
        torch.stack([number(value) for value in whole]),
        torch.stack([torch.stack([number(value) for value in each]) for each in branches], 1)
        if branches
        else terms.total.new_zeros(2, 0, dtype=torch.float64),
    )


def number_or_none(value: float) -> float | None:
    """A number, or None for NaN, which stands for what there is none of."""
    return None if math.isnan(value) else value


def branch_means(
    sums: BatchSums, places: Sequence[str], fabric: Fabric
) -> dict[str, dict[str, float] | dict[str, float | None]]:
    """Sums of branches as means over what counts in all processes, by the place of the branch; see `Sums.means`."""
    total = fabric.all_reduce(torch.cat([sums.branches, sums.whole[[6, 5]][:, None]], 1), reduce_op="sum")
    assert isinstance(total, Tensor)
    (*losses, weight), (*hits, count) = total.tolist()
    losses = [each / (weight or 1) for each in losses]
    accuracies = [each / (count or math.nan) for each in hits]
    return {
        "branch_loss": dict(zip(places, losses, strict=True)),
        "branch_accuracy": dict(zip(places, map(number_or_none, accuracies), strict=True)),
    }


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
        best_loss: on the validation split, of the weights that were kept; what chooses them in a regression.
        best_epoch: whose weights were kept, from 1.
        kept: the best epochs and their scores, the best first.
        branch_share: of the branches in the first layer's gradient, measured at the start of the epoch.
        main_over_branches: norms of the first layer's gradient, measured last; used by the adaptive schedule.
        coefficient: of the last step.
        epoch_sums: over the batches done of the epoch.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    images: int = 0
    step_seconds: float = 0.0
    seconds: float = 0.0
    best_accuracy: float = -1.0
    best_loss: float = math.inf
    best_epoch: int = 0
    kept: list[tuple[int, float]] = field(default_factory=list)
    branch_share: float | None = None
    main_over_branches: float = 1.0
    coefficient: float = 0.0
    epoch_sums: Sums = field(default_factory=Sums)

    @property
    def all_seconds(self) -> float:
        return self.step_seconds + self.seconds

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "epoch_sums": self.epoch_sums.to_dict()}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> TrainState:
        return cls(**{**content, "epoch_sums": Sums.from_dict(content["epoch_sums"])})


def random_states(fabric: Fabric) -> list[dict[str, Any]]:
    """The state of PyTorch's generators, of the CPU and of its own GPU, in every process."""
    own = {"cpu": torch.get_rng_state(), "cuda": None}
    if fabric.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(fabric.device)
    states = [own] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(states, own)
    return states


def set_random_state(states: list[dict[str, Any]] | dict[str, Any], fabric: Fabric) -> None:
    """Put back what `random_states` returned; a process that there was none of takes that of the first."""
    if isinstance(states, dict):  # of a checkpoint of an earlier version
        states = [states]
    rank = fabric.global_rank
    state = states[rank] if rank < len(states) else states[0]
    torch.set_rng_state(state["cpu"])
    of_gpu = state["cuda"]
    if isinstance(of_gpu, list):  # of an earlier version: of every GPU of a machine that may have had more, or none
        of_gpu = dict(enumerate(of_gpu)).get(fabric.device.index or 0)
    if of_gpu is not None and fabric.device.type == "cuda":
        torch.cuda.set_rng_state(of_gpu, fabric.device)

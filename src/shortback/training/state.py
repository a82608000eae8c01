"""The state that a run needs to resume exactly where it stopped."""

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
        values: `[7]`, of this process: loss, loss of the main output, hits of the main output, hits of the combined
            logits, images, images whose label counts, and the weight that the losses are divided by.
        seconds: duration of the steps.
    """

    values: Tensor = field(default_factory=lambda: torch.zeros(7, dtype=torch.float64))
    seconds: float = 0.0

    def add(self, sums: Tensor) -> None:
        """Add the `[7]` sums of one step."""
        self.values = self.values.to(sums.device) + sums

    def means(self, fabric: Fabric) -> dict[str, float | None]:
        """Compute the means over the images of all processes, weighted as by the loss, and the throughput.

        `loss` and `sum_accuracy` are of what is trained, `main_loss` and `accuracy` of the main output, which inference
        uses. Accuracies are None in a regression, and if no label counts; the losses are then 0.
        """
        values = fabric.all_reduce(self.values, reduce_op="sum")
        assert isinstance(values, Tensor)
        loss, main, correct, sum_correct, images, count, weight = values.tolist()
        return {
            "loss": loss / (weight or 1),
            "main_loss": main / (weight or 1),
            "accuracy": none_if_nan(correct / (count or math.nan)),
            "sum_accuracy": none_if_nan(sum_correct / (count or math.nan)),
            "images_per_second": images / self.seconds,
        }

    def to_dict(self) -> dict[str, Any]:
        return {"values": self.values.cpu(), "seconds": self.seconds}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Sums:
        values = content["values"]
        if len(values) == 4:  # a checkpoint from before logits were added: the main output was all that was classified
            values = values[[0, 1, 2, 2, 3]]
        if len(values) == 5:  # a checkpoint from before labels could be ignored
            values = values[[0, 1, 2, 3, 4, 4, 4]]
        return cls(values, content["seconds"])


class BatchSums(NamedTuple):
    """Sums over the images of a batch: `whole`, `[7]`, as in `Sums`, and the loss and hits by branch, `[2, B]`."""

    whole: Tensor
    branches: Tensor

    @property
    def mean_loss(self) -> Tensor:
        """The mean loss; 0 if no label counts."""
        return (self.whole[0] / self.whole[6]).where(self.whole[6] != 0, 0)


@torch.no_grad()
def sums_of(
    outputs: Outputs | Tensor, combined: Tensor, target: Tensor, terms: LossTerms, *, loss: ShortcutLoss
) -> BatchSums:
    """Compute the sums of one batch; branches are those with a loss in `terms`. Hits are NaN in a regression.

    Args:
        outputs: the outputs of the network.
        combined: their `ShortcutLoss.combined_logits`.
        target: the target of the batch.
        terms: the losses of the batch.
        loss: the loss that computed them.
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


def none_if_nan(value: float) -> float | None:
    """Convert NaN, which marks a missing value, to None."""
    return None if math.isnan(value) else value


def branch_means(
    sums: BatchSums, places: Sequence[str], fabric: Fabric
) -> dict[str, dict[str, float] | dict[str, float | None]]:
    """Compute the mean loss and accuracy of each branch over all processes, by its place; see `Sums.means`."""
    total = fabric.all_reduce(torch.cat([sums.branches, sums.whole[[6, 5]][:, None]], 1), reduce_op="sum")
    assert isinstance(total, Tensor)
    (*losses, weight), (*hits, count) = total.tolist()
    losses = [each / (weight or 1) for each in losses]
    accuracies = [each / (count or math.nan) for each in hits]
    return {
        "branch_loss": dict(zip(places, losses, strict=True)),
        "branch_accuracy": dict(zip(places, map(none_if_nan, accuracies), strict=True)),
    }


@dataclass
class TrainState:
    """Progress of a run.

    Attributes:
        step: optimizer steps done.
        epoch: epochs done.
        batch: batches done of the current epoch.
        images: images seen by all processes.
        step_seconds: total duration of the steps.
        seconds: total duration of everything else: validation and checkpoints.
        best_accuracy: validation accuracy of the best epoch, -1 if there is none.
        best_loss: validation loss of the best epoch, by which a regression selects it.
        best_epoch: the epoch whose weights were kept, from 1.
        kept: the best epochs and their scores, best first.
        branch_share: the branches' share of the first layer's gradient, measured at the start of the epoch.
        main_over_branches: ratio of gradient norms in the first layer, as measured last, for the adaptive schedule.
        coefficient: the balance coefficient of the last step.
        epoch_sums: sums over the batches done of the epoch.
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
    """Collect the states of PyTorch's generators, of the CPU and of each process's own GPU, from all processes."""
    own = {"cpu": torch.get_rng_state(), "cuda": None}
    if fabric.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(fabric.device)
    states = [own] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(states, own)
    return states


def set_random_state(states: list[dict[str, Any]] | dict[str, Any], fabric: Fabric) -> None:
    """Restore this process's part of what `random_states` returned; a process without one takes the first's."""
    if isinstance(states, dict):  # a checkpoint of an earlier version
        states = [states]
    rank = fabric.global_rank
    state = states[rank] if rank < len(states) else states[0]
    torch.set_rng_state(state["cpu"])
    of_gpu = state["cuda"]
    if isinstance(of_gpu, list):  # an earlier version: one state for each GPU of the machine, possibly none
        of_gpu = dict(enumerate(of_gpu)).get(fabric.device.index or 0)
    if of_gpu is not None and fabric.device.type == "cuda":
        torch.cuda.set_rng_state(of_gpu, fabric.device)

"""Check the gradients during training from time to time, on a few samples of the current batch."""

from __future__ import annotations

import logging
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.data.seeding import preserve_global_generator
from shortback.errors import UserError
from shortback.health import first_samples, judge, measure
from shortback.health.report import plain, why_constant_in_eval
from shortback.losses import ShortcutLoss
from shortback.training._evaluate import Evaluation
from shortback.training.batches import Batches
from shortback.training.sync_norm import local_norms

log = logging.getLogger("shortback")


class GradientWatch:
    """Measures and judges the gradient at regular intervals, right before a step, the first one included.

    It uses the reference backend, which needs no compilation, and few samples: three passes of 16 samples take about as
    long as one step of 128, so a check every 200 steps costs a percent or less. Training is not affected.

    Args:
        net: what `attach` returned, or a network without branches.
        loss: the loss of the training.
        every: optimizer steps between checks; None for never.
        num_samples: number of samples taken from the batch.
    """

    def __init__(self, net: nn.Module, *, loss: ShortcutLoss, every: int | None, num_samples: int) -> None:
        self.net, self.loss, self.every, self.num_samples = net, loss, every, num_samples
        self._told = False

    def is_due(self, step: int) -> bool:
        """Whether a check is due after `step` optimizer steps."""
        return self.every is not None and step % self.every == 0

    def look(self, x: Tensor, y: Tensor, *, coefficient: float) -> dict[str, Any]:
        """Measure and judge the gradient; returns plain values, with those by layer in `layers` and `neurons`."""
        measured = measure(
            self.net,
            *first_samples(self.net, x, y, self.num_samples, loss=self.loss.main),
            loss=self.loss,
            coefficient=coefficient,
            by_branch=False,
            backend="reference",
        )
        judgement = judge(measured)
        layers, neurons = measured.layers, measured.neurons
        return plain(
            {
                "verdict": judgement.verdict,
                "at_layer": judgement.layer,
                "reason": judgement.reason,
                "slope": judgement.slope,
                "effective_depth": judgement.effective_depth,
                "num_layers": judgement.num_layers,
                "coefficient": coefficient,
                "branch_share": layers[0].branch_share if layers else 0.0,
                "layers": {
                    "relative": {layer.name: layer.relative for layer in layers},
                    "branch_share": {layer.name: layer.branch_share for layer in layers},
                },
                "neurons": {
                    "firing_rate": {neuron.name: neuron.firing_rate for neuron in neurons},
                    "dead": {neuron.name: neuron.dead for neuron in neurons},
                    "in_window": {neuron.name: neuron.in_window for neuron in neurons},
                },
            }
        )

    def warn_if_constant(self, net: nn.Module, result: Evaluation, *, batches: Batches, fabric: Fabric) -> None:
        """Warn once, in the first process, if all samples of a validation got the same output, and say why.

        Args:
            net: the network that was validated.
            result: result of the validation.
            batches: batches of the validation; the first one is measured.
            fabric: the Fabric of the training.
        """
        if not result.is_constant or self._told or not fabric.is_global_zero:
            return
        self._told = True
        with preserve_global_generator():
            x, y = fabric.to_device(next(iter(batches.epoch(0))))
        silent = None
        if len(y) > 1:
            try:
                with local_norms(net), fabric.autocast():
                    few = first_samples(net, x, y, self.num_samples, loss=self.loss.main)
                    silent = measure(net, *few, loss=self.loss, coefficient=1.0, backend="reference").silent_in_eval
            except UserError:  # the network or the batch cannot be measured
                pass
        why = "in eval(), all samples of the validation get the same output; sb.diagnose(net, x, y) may say why"
        log.warning("%s", why if silent is None else why_constant_in_eval(silent))

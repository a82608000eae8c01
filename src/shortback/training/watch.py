"""Look at the gradients of a training now and then, on a few samples of the batch at hand."""

from __future__ import annotations

import logging
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.data.seeding import global_generator_kept
from shortback.errors import UserError
from shortback.health import first_samples, judge, measure
from shortback.health.report import plain, why_constant_in_eval
from shortback.losses import ShortcutLoss
from shortback.training._evaluate import Evaluation
from shortback.training.batches import Batches
from shortback.training.sync_norm import local_norms

log = logging.getLogger("shortback")


class GradientWatch:
    """Measures and judges the gradient every so many steps, before the step is taken; the first time is the pre-flight.

    On the reference backend, which waits for no compiler, and few samples: three passes of 16 take about as long as one
    step of 128, so that every 200 steps it costs a percent or less. It changes nothing in the training.

    Args:
        net: what `attach` returned, or a network without branches.
        loss: of the training.
        every: so many optimizer steps; never where it is None.
        num_samples: taken of the batch.
    """

    def __init__(self, net: nn.Module, *, loss: ShortcutLoss, every: int | None, num_samples: int) -> None:
        self.net, self.loss, self.every, self.num_samples = net, loss, every, num_samples
        self._told = False

    def is_due(self, step: int) -> bool:
        """Whether to look before the step that follows `step` others."""
        return self.every is not None and step % self.every == 0

    def look(self, x: Tensor, y: Tensor, *, coefficient: float) -> dict[str, Any]:
        """The judgement and its numbers as plain values; `layers` and `neurons` hold those by layer."""
        measured = measure(
            self.net,
            *first_samples(self.net, x, y, self.num_samples),
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

    def tell_if_constant(self, net: nn.Module, result: Evaluation, *, batches: Batches, fabric: Fabric) -> None:
        """Say once that all samples of a validation got the same output, and why, on the first process alone.

        Args:
            net: what was validated.
            result: of the validation.
            batches: of it, of which the first is looked at again.
            fabric: of the training.
        """
        if not result.is_constant or self._told or not fabric.is_global_zero:
            return
        self._told = True
        with global_generator_kept():
            x, y = fabric.to_device(next(iter(batches.epoch(0))))
        silent = None
        if len(y) > 1:
            try:
                with local_norms(net), fabric.autocast():
                    few = first_samples(net, x, y, self.num_samples)
                    silent = measure(net, *few, loss=self.loss, coefficient=1.0, backend="reference").silent_in_eval
            except UserError:  # of a network or a batch that cannot be measured
                pass
        why = "in eval() all samples of the validation get the same output; sb.diagnose(net, x, y) may say why"
        log.warning("%s", why if silent is None else why_constant_in_eval(silent))

"""Check that a network and its first batch fit together, before anything is compiled."""

from __future__ import annotations

import logging

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.choices import Layout
from shortback.health import first_samples
from shortback.inspection.backends import with_backend
from shortback.inspection.firing import returns_zeros
from shortback.inspection.layout import warn_of_steps_in_a_tuple
from shortback.inspection.mistakes import check_batch, explaining
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import trunk_of
from shortback.inspection.untouched import undisturbed
from shortback.losses import CrossEntropy, ShortcutLoss
from shortback.targets import check_target
from shortback.training._evaluate import has_unknown_steps, layout_of_output, outputs_of
from shortback.training.sync_norm import local_norms

log = logging.getLogger("shortback")


class Preflight:
    """Checks the first batch by running two of its samples in `eval()`, on the reference backend.

    Attributes:
        layout: layout of the network's output, if it is by step and the network has no branches.
    """

    def __init__(self, net: nn.Module, *, loss: ShortcutLoss, fabric: Fabric) -> None:
        self.net, self.loss, self.fabric, self.done = net, loss, fabric, False
        self.layout: Layout = "time_first"

    def check(self, x: Tensor, y: Tensor) -> None:
        """Check that the network accepts the inputs, and the loss its output and the classes.

        Later calls do nothing.

        Raises:
            ValueError: it does not, or it cannot be determined which axis of the output holds the steps; the message
                says what to do.
        """
        if self.done:
            return
        self.done = True
        check_batch(x, what="batch")
        few, _ = first_samples(self.net, x, y, 2)
        with undisturbed(self.net, few), with_backend("reference", self.net), torch.no_grad(), self.fabric.autocast():
            reset_states(self.net)
            with explaining(self.net, x, what="batch"):
                returned = self.net.eval()(few.clone())
                outputs = outputs_of(returned)
            if has_unknown_steps(self.net, returned):
                self.layout = layout_of_output(self.net, few, num_samples=min(2, len(y)))
                outputs = outputs_of(returned, self.layout)
        warn_of_steps_in_a_tuple(returned)
        logits = outputs if isinstance(outputs, Tensor) else outputs.logits
        if isinstance(self.loss.main, CrossEntropy):
            check_target(torch.empty(len(y), logits.shape[-1]), y.cpu())  # an invalid class aborts a GPU
        with self.fabric.autocast(), local_norms(self.net):
            if len(y) > 1 and not logits.any() and returns_zeros(self.net, x):
                log.warning(
                    "the output of %s is 0 for all samples of the first batch, as if its neurons never fire: use a "
                    "readout that does not fire, or a lower threshold",
                    type(trunk_of(self.net)).__name__,
                )

"""See that a network and its first batch go together, before anything is compiled."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from shortback.health import first_samples
from shortback.inspection.backends import running_by
from shortback.inspection.layout import warn_of_steps_in_a_tuple
from shortback.inspection.mistakes import check_batch, explaining
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import Branched
from shortback.inspection.untouched import undisturbed
from shortback.losses import CrossEntropy, ShortcutLoss
from shortback.spiking import SpikingNetwork
from shortback.targets import check_target
from shortback.training._evaluate import check_steps_first, outputs_of


class Preflight:
    """Looks at the first batch it is given: two of its samples run once, in `eval()` and on the reference backend."""

    def __init__(self, net: nn.Module, *, loss: ShortcutLoss, fabric: Fabric) -> None:
        self.net, self.loss, self.fabric, self.done = net, loss, fabric, False

    def check(self, x: Tensor, y: Tensor) -> None:
        """See that the network takes the inputs, and the loss what it returns and the classes.

        Raises:
            ValueError: it does not, and what to do about it; outputs whose first axis are samples, and not steps.
        """
        if self.done:
            return
        self.done = True
        check_batch(x, what="batch")
        few, _ = first_samples(self.net, x, y, 2)
        with undisturbed(self.net, few), running_by("reference", self.net), torch.no_grad(), self.fabric.autocast():
            reset_states(self.net)
            with explaining(self.net, x, what="batch"):
                returned = self.net.eval()(few.clone())
                outputs = outputs_of(returned)
        warn_of_steps_in_a_tuple(returned)
        logits = outputs if isinstance(outputs, Tensor) else outputs.logits
        if isinstance(self.loss.main, CrossEntropy):
            check_target(torch.empty(len(y), logits.shape[-1]), y.cpu())  # a GPU would die of a class that is none
        if logits.ndim == 3 and not isinstance(self.net, Branched | SpikingNetwork):
            with self.fabric.autocast():
                check_steps_first(self.net, few, num_samples=min(2, len(y)))

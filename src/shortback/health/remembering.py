"""What a network remembers from one batch to the next, where the same batch gave it two outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from shortback.health.graph import gradients
from shortback.inspection.layout import stacked
from shortback.inspection.repeatable import why_not_repeatable
from shortback.inspection.reset import reset_states, saying_what_remembers
from shortback.inspection.untouched import undisturbed


def refuse_a_way_back(
    net: nn.Module, x: Tensor, run: Callable[[], Sequence[Tensor]], weights: Sequence[Tensor]
) -> None:
    """See that the gradient of the batch that comes next does not lead back into this one, as in a training.

    Args:
        net: in training mode, straight after a backward pass that freed its graph; left as it was.
        x: the batch.
        run: the network on it, once more, to outputs.
        weights: that a gradient is taken of.

    Raises:
        ValueError: it leads there.
    """
    with undisturbed(net, x), saying_what_remembers():
        reset_states(net)
        outputs = run()
        gradients(outputs, weights, [torch.ones_like(output) for output in outputs], keep=False)


@torch.no_grad()
def remembers(model: nn.Module, x: Tensor) -> bool:
    """Whether a network remembers something that no reset undoes, as a counter, an average or a membrane.

    Not known, and so False, of one that fails on the inputs it is looked at with, which it need not take.
    """
    alike = []
    try:
        if why_not_repeatable(model, x) != "remembers":
            return False
        for _ in range(2):
            with undisturbed(model, x):
                torch.manual_seed(0)
                reset_states(model)
                alike.append(stacked(model.eval()(x.clone())).clone())
    except Exception:  # the network's own code, on an input it may not take, may raise anything
        return False
    return torch.allclose(*alike, equal_nan=True)  # else it is arithmetic that differs from run to run, as on some GPUs

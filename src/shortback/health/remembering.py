"""Find out whether a network remembers something from one batch to the next, if the same batch gave two outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from shortback.health.graph import gradients
from shortback.inspection.generators import seed_generators
from shortback.inspection.layout import stacked
from shortback.inspection.repeatable import why_not_repeatable
from shortback.inspection.reset import explaining_stale_graph, reset_states
from shortback.inspection.untouched import undisturbed


def check_graph_is_new(
    net: nn.Module, x: Tensor, run: Callable[[], Sequence[Tensor]], weights: Sequence[Tensor]
) -> None:
    """Check that the gradient of a next batch does not lead back into the graph of this one, as it might in training.

    Args:
        net: a network in training mode, straight after a backward pass that freed its graph; left as it was.
        x: the batch.
        run: runs the network on the batch once more and returns its outputs.
        weights: the weights to differentiate by.

    Raises:
        ValueError: the gradient leads back into the earlier graph.
    """
    with undisturbed(net, x), explaining_stale_graph():
        reset_states(net)
        outputs = run()
        gradients(outputs, weights, [torch.ones_like(output) for output in outputs], keep=False)


@torch.no_grad()
def remembers(model: nn.Module, x: Tensor) -> bool:
    """Whether a network remembers something that no reset undoes, such as a counter, an average or a membrane.

    False if this cannot be found out because the network fails on the inputs tried, which it need not support.
    """
    alike = []
    try:
        if why_not_repeatable(model, x) != "remembers":
            return False
        for _ in range(2):
            with undisturbed(model, x):
                seed_generators(0)
                reset_states(model)
                alike.append(stacked(model.eval()(x.clone())).clone())
    except Exception:  # the network's own code may raise anything on an input it does not support
        return False
    return torch.allclose(*alike, equal_nan=True)  # if not, arithmetic differs from run to run, as on some GPUs

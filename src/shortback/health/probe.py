"""Measure what the branches bring to the gradient of the first layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from shortback.losses import LossTerms, Outputs


def branch_share(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    loss: Callable[..., LossTerms],
    coefficient: float,
) -> float:
    r"""The share of the branches in the gradient of the first layer's weight.

    $$\frac{\lVert g_{branches} \rVert}{\lVert g_{main} \rVert + \lVert g_{branches} \rVert}$$

    where $g_{main}$ is the gradient of the total loss through the main output and $g_{branches}$ that through the
    branches, both by the first weight of two or more dimensions. 0 where there are no branches or they have no
    gradient. One forward in training mode; parameters, their gradients and the buffers are left as they were.

    Args:
        net: what `attach` returned, or a network without branches.
        x: a batch the network takes.
        target: its classes `[N]` or probabilities `[N, K]`.
        loss: such as `ShortcutLoss`.
        coefficient: of the branches.
    """
    buffers = [(buffer, buffer.clone()) for buffer in net.buffers()]
    devices = [x.device] if x.device.type == "cuda" else []
    was_training = net.training
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        outputs: Outputs | Tensor = net.train()(x)
        if isinstance(outputs, Tensor) or not outputs.branches:
            share = 0.0
        else:
            first = next(p for p in net.parameters() if p.requires_grad and p.ndim >= 2)
            logits, branches = outputs
            alone = Outputs(logits.detach(), branches), Outputs(logits, {k: v.detach() for k, v in branches.items()})
            through_branches, through_main = (
                _norm(loss(part, target, coefficient=coefficient).total, first) for part in alone
            )
            share = through_branches / (through_main + through_branches) if through_branches else 0.0
    net.train(was_training)
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return share


def _norm(loss: Tensor, weight: Tensor) -> float:
    (gradient,) = torch.autograd.grad(loss, weight, retain_graph=True)
    return gradient.float().norm().item()

r"""Optimizer and learning rate.

The learning rate is a pure function of the step: a linear warm-up, then a cosine to its final value. Weight decay
applies only to weights with two or more dimensions: not to biases and norms, nor to the parameters of neurons, to
position embeddings, or to parameters that a module exempts by `no_weight_decay()`, as timm's models do.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Real

import torch
from torch import nn

from shortback.choices import OptimizerKind, check_choice
from shortback.errors import UserError
from shortback.inspection.libraries import is_library_neuron
from shortback.inspection.trunk import Branched
from shortback.neurons import SpikingNeuron

EMBEDDINGS = {"pos_embed", "cls_token", "dist_token", "reg_token", "relative_position_bias_table"}


def build_optimizer(
    net: nn.Module,
    *,
    kind: OptimizerKind = "sgd",
    lr: float = 0.1,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 1e-4,
) -> torch.optim.Optimizer:
    """Build an optimizer over the trainable parameters of `net`, in two groups: with and without weight decay.

    Args:
        net: what is trained; frozen parameters are left out.
        kind: `"sgd"` or `"adamw"`.
        lr: the learning rate; 0.1 suits SGD, and about 0.001 AdamW.
        momentum, nesterov: for SGD alone.
        weight_decay: of weights with two or more axes; norms, biases and the parameters of neurons have none.

    Raises:
        ValueError: an unknown kind, or no trainable parameters.
    """
    check_choice("kind", kind, OptimizerKind)
    parameters, exempt = [p for p in net.parameters() if p.requires_grad], _exempt(net)
    if not parameters:
        raise UserError(f"{type(net).__name__} has no trainable parameters: it has none, or all are frozen")
    decayed = [p for p in parameters if p.ndim >= 2 and p not in exempt]
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2 or p in exempt], "weight_decay": 0.0},
    ]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=lr)


def _exempt(net: nn.Module) -> set[nn.Parameter]:
    """Parameters exempt from weight decay, which would pull them towards a wrong value."""
    exempt = {p for name, p in net.named_parameters() if name.rpartition(".")[2] in EMBEDDINGS}
    for module in net.modules():
        if isinstance(module, SpikingNeuron) or is_library_neuron(module):
            exempt.update(module.parameters())
        elif not isinstance(module, nn.modules.conv._ConvNd | nn.Linear):  # one number per channel, e.g. a decay
            exempt.update(p for p in module.parameters(recurse=False) if p.numel() == max(p.shape, default=0))
        names: Callable[[], Iterable[str]] | None = getattr(module, "no_weight_decay", None)
        if names is not None:
            own = dict(module.named_parameters())
            exempt.update(own[name] for name in names() if name in own)
    return exempt


def check_optimizer(optimizer: torch.optim.Optimizer, net: nn.Module) -> None:
    """Check that an optimizer updates the network being trained, and the heads of its branches.

    Raises:
        UserError: the optimizer holds parameters of another network, such as a copy, lacks a head's, or needs a
            closure.
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise UserError(f"optimizer: {type(optimizer).__name__} computes the loss several times a step: use another")
    moved = {p for group in optimizer.param_groups for p in group["params"]}
    own = set(net.parameters())
    if moved - own and own - moved:  # parameters besides the network's may belong to a loss
        raise UserError(
            f"optimizer: {len(moved - own)} of its {len(moved)} parameters do not belong to the network in training: "
            "create it from net.parameters(), after copying or changing the network"
        )
    heads = net.heads.named_parameters() if isinstance(net, Branched) else ()
    still = [name for name, p in heads if p.requires_grad and p not in moved]
    if still:
        raise UserError(
            f"optimizer: lacks the heads of the branches ({', '.join(still[:3])} ...), which would never be trained: "
            "create it from the parameters of what attach() returned"
        )


def check_rates(lr: object, learning_rate: object) -> None:
    """Check that `lr` is a number and `learning_rate` a function of the step, as `fit` takes them.

    Raises:
        UserError: either is something else, such as a scheduler of `torch.optim`.
    """
    if isinstance(lr, bool) or not isinstance(lr, Real) or not 0 <= float(lr) < math.inf:
        raise UserError(f"lr={lr!r}: must be a number, 0 or more")
    if learning_rate is None or callable(learning_rate):
        return
    what, hint = repr(learning_rate), "for a constant pass lambda step: 0.1; lr= sets the peak of a cosine"
    if hasattr(learning_rate, "get_last_lr"):
        what = f"a {type(learning_rate).__name__}"
        hint = "a tenth every 1000 steps is lambda step: 0.1 * 0.1 ** (step // 1000)"
    raise UserError(f"learning_rate={what}: must be a function of the optimizer step, from 0; {hint}")


def shares_of_groups(optimizer: torch.optim.Optimizer) -> list[float]:
    """The learning rate of each group, relative to the largest."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return [rate / max(rates) if max(rates) else 1.0 for rate in rates]


@dataclass(frozen=True, kw_only=True)
class WarmupCosine:
    r"""Learning rate by step: $\eta_{max} \frac{i + 1}{W}$ for $W$ warm-up steps, then a half cosine to `final`.

    Args:
        peak: the largest learning rate.
        total_steps: number of steps of the whole training.
        warmup_steps: number of warm-up steps, less than `total_steps`.
        final: the learning rate that the cosine approaches; it would be reached one step after the last.

    Raises:
        UserError: `warmup_steps` outside [0, `total_steps`).
    """

    peak: float
    total_steps: int
    warmup_steps: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_steps < self.total_steps:
            raise UserError(
                f"the warm-up of {self.warmup_steps} steps must be shorter than the training of {self.total_steps}"
            )

    def __call__(self, step: int) -> float:
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        q = (step - self.warmup_steps) / (self.total_steps - self.warmup_steps)
        return self.final + 0.5 * (self.peak - self.final) * (1 + math.cos(math.pi * q))

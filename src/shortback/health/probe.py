r"""Measure the gradient of every layer on one batch, by the terms of the loss, and what the neurons do.

The gradient of a layer is the sum of what reaches it through the main output and through each branch,

$$\frac{\partial L}{\partial w} = \sum_{o \in \{O, O_1, \dots, O_K\}}
  \Big(\frac{\partial o}{\partial w}\Big)^{\!\top} \frac{\partial L}{\partial o},$$

so the loss is differentiated once by the outputs, whatever it does with them, and the network once for every output.
What vanilla training would see is the gradient of the loss of the main output alone. That is the part through the main
output where losses are added, and another where logits are: there the loss by the main output depends on the branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shortback.choices import Backend, Layout
from shortback.errors import UserError
from shortback.health.activity import Observer
from shortback.health.measurement import MAIN, Histogram, LayerGradient, Measurement
from shortback.health.neurons import layouts_of, neurons_of
from shortback.inspection.backends import running_by
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import logits_of, sample_axis
from shortback.inspection.mistakes import check_batch, explaining
from shortback.inspection.pointwise import safely
from shortback.inspection.reset import reset_states
from shortback.inspection.trunk import trunk_of
from shortback.inspection.untouched import in_training, modes_kept, undisturbed
from shortback.losses import CrossEntropy, mean_over_time
from shortback.outputs import LossTerms, Outputs
from shortback.spiking import SpikingNetwork
from shortback.targets import check_target
from shortback.torch_private import is_compiled

NUM_BINS = 81  # odd, so that 0 is in the middle of one


def measure(
    net: nn.Module,
    x: Tensor,
    target: Tensor,
    *,
    loss: Callable[..., LossTerms],
    coefficient: float,
    by_branch: bool = True,
    backend: Backend | None = None,
) -> Measurement:
    """Two forwards in training mode, and a backward for the loss and for each of its terms.

    It runs in the precision, on the backend and under the autocast it is called in. Parameters, their `.grad`, buffers,
    modes, hooks and the random state are afterwards what they were.

    Args:
        net: what `attach` returned, or a network without branches.
        x: a batch the network takes.
        target: its classes `[N]` or probabilities `[N, K]`.
        loss: of outputs, target and coefficient, such as `ShortcutLoss`.
        coefficient: of the branches.
        by_branch: whether each branch, and vanilla training, are measured on their own too, or all branches together.
        backend: of the neurons for this measurement; each has its own if it is not given. The reference waits for no
            compiler and keeps about ten times as much in memory.

    Raises:
        ValueError: a network or a batch that cannot be measured, and why.
    """
    trunk = _trunk(net)
    _refuse_unsuitable(net, trunk, x, target)
    layers = _layers(trunk)
    with running_by(backend, trunk), explaining(trunk, x, what="batch"):
        neurons = neurons_of(trunk, trunk_of(net), x)
        layouts, output_layout = layouts_of(net, trunk, neurons, x)
    observer = Observer(len(target), neurons, layouts)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        running_by(backend, trunk),
        undisturbed(net, x),
        safely(trunk),
    ):
        x, target = (t.clone() if t.is_inference() else t for t in (x, target))
        silent = _silent_in_eval(net, x, Observer(len(target), neurons, layouts), output_layout) if by_branch else set()
        # Once to look at every module, and once more without hooks, so that it keeps for backward what training keeps.
        with torch.no_grad(), observer.observe(), _order_of_calls(layers) as order:
            reset_states(net)
            with explaining(trunk, x, what="batch"):
                in_training(net)(x.clone())  # which some networks change in place
        with observer.observe_gradients():
            reset_states(net)
            outputs = _outputs(net(x.clone()), output_layout)
        if isinstance(getattr(loss, "main", loss), CrossEntropy):
            check_target(outputs.logits, target)
        terms, cotangents = _differentiate(loss, outputs, target, coefficient)
        vanilla = _differentiate(loss, Outputs(outputs.logits, {}), target, coefficient)[1] if by_branch else None
        called = list(dict.fromkeys(order))
        weights = [weight for name in called for weight in layers[name][1]]
        grads = _backward(outputs, cotangents, weights, observer=observer, vanilla=vanilla)
        activities = observer.activities()
        fires_here_alone = (each.name for each in activities if each.firing_rate and each.name in silent)
    measured, start = [], 0
    unused = [name for name in layers if name not in called]
    for name in called:
        module, own = layers[name]
        mine = {term: gradients[start : start + len(own)] for term, gradients in grads.items()}
        start += len(own)
        if all(gradient is None for gradient in mine[_TOTAL]):
            unused.append(name)
        else:
            measured.append(_layer(name, module, own, mine))
    losses = {MAIN: terms.main.item(), **{name: term.item() for name, term in terms.branches.items()}}
    return Measurement(
        layers=measured,
        neurons=activities,
        loss=terms.total.item(),
        losses=losses,
        coefficient=float(coefficient),
        num_samples=len(target),
        unused=unused,
        silent_in_eval=next(fires_here_alone, None),
        first_layer=_histogram(grads, layers[called[0]][1]) if by_branch and called else None,
    )


@torch.no_grad()
def _silent_in_eval(net: nn.Module, x: Tensor, observer: Observer, layout: Layout) -> set[str]:
    """The neurons that never fire in `eval()`, if all samples get one output there although norms have statistics."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not any(norm.num_batches_tracked for norm in norms):
        return set()
    reset_states(net)
    with modes_kept(net), observer.observe(), explaining(net, x, what="batch"):
        logits = mean_over_time(_outputs(net.eval()(x.clone()), layout).logits)
    if len(logits) < 2 or not torch.equal(logits, logits[:1].expand_as(logits)):
        return set()
    return {activity.name for activity in observer.activities() if not activity.firing_rate}


def first_samples(net: nn.Module, x: Tensor, target: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first samples of a batch that a network takes, and their target; all where these are folded in the input."""
    axis = sample_axis(net, x, len(target))
    return (x, target) if axis is None else (x.narrow(axis, 0, min(count, x.shape[axis])), target[:count])


@contextmanager
def _order_of_calls(layers: dict[str, tuple[nn.Module, list[nn.Parameter]]]) -> Iterator[list[str]]:
    """The names of the layers as they are called."""
    order: list[str] = []

    def noting(name: str) -> Callable[..., None]:
        return lambda module, inputs: order.append(name)

    with hooked(((module, noting(name)) for name, (module, _) in layers.items()), before=True):
        yield order


# Beside the names of the outputs, which are the network's own.
_TOTAL, _BRANCHES, _VANILLA = object(), object(), object()


def _trunk(net: nn.Module) -> nn.Module:
    """The network itself: without its branches, and without the wrapper that owns its time steps."""
    model = trunk_of(net)
    return model.network if isinstance(model, SpikingNetwork) else model


def _refuse_unsuitable(net: nn.Module, trunk: nn.Module, x: Tensor, target: Tensor) -> None:
    if any(map(is_compiled, net.modules())):
        raise UserError("the network is compiled, and would not see the probe: pass it as it was before torch.compile")
    if not any(p.requires_grad and p.ndim >= 2 for p in trunk.parameters()):
        raise UserError(f"{type(trunk).__name__} has no weights that are trained: there is no gradient to measure")
    check_batch(x, what="batch")
    if not isinstance(target, Tensor):
        raise UserError(f"the target is a {type(target).__name__}: make it a tensor, torch.as_tensor(target)")
    if len(target) == 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in trunk.modules()):
        raise UserError("a batch of one sample under batch norm says nothing about training: give two or more")


def _layers(trunk: nn.Module) -> dict[str, tuple[nn.Module, list[nn.Parameter]]]:
    """Every module that has weights of its own, by name."""
    owned = (
        (name, module, [p for p in module.parameters(recurse=False) if p.ndim >= 2 and p.requires_grad])
        for name, module in trunk.named_modules()
    )
    return {name: (module, weights) for name, module, weights in owned if weights}


def _outputs(outputs: Any, layout: Layout) -> Outputs:
    return outputs if isinstance(outputs, Outputs) else Outputs(logits_of(outputs, layout, None), {})


def _differentiate(
    loss: Callable[..., LossTerms], outputs: Outputs, target: Tensor, coefficient: float
) -> tuple[LossTerms, list[Tensor]]:
    """The loss, and its gradient by every output, the main one first."""
    leaves = [output.detach().requires_grad_() for output in (outputs.logits, *outputs.branches.values())]
    terms = loss(
        Outputs(leaves[0], dict(zip(outputs.branches, leaves[1:], strict=True))), target, coefficient=coefficient
    )
    gradients = torch.autograd.grad(terms.total, leaves, allow_unused=True)
    return terms, [torch.zeros_like(o) if g is None else g for o, g in zip(leaves, gradients, strict=True)]


def _backward(
    outputs: Outputs,
    cotangents: Sequence[Tensor],
    weights: Sequence[Tensor],
    *,
    observer: Observer,
    vanilla: Sequence[Tensor] | None,
) -> dict[Any, Sequence[Tensor | None]]:
    """The gradients of the weights: of the whole loss, through the main output, through each branch and through all.

    Each branch by itself, and vanilla training, only if the gradient of its loss by the main output is given.
    """
    mains, branches = [outputs.logits], list(outputs.branches.values())

    def gradients(of: Sequence[Tensor], cotangent: Sequence[Tensor], *, last: bool = False) -> Sequence[Tensor | None]:
        return torch.autograd.grad(of, weights, cotangent, retain_graph=not last, allow_unused=True)

    observer.records_gradients = True
    grads: dict[Any, Sequence[Tensor | None]] = {_TOTAL: gradients([*mains, *branches], cotangents, last=not branches)}
    observer.records_gradients = False
    if not branches:
        return {**grads, MAIN: grads[_TOTAL], _VANILLA: grads[_TOTAL]}
    if vanilla is not None:
        for name, output, cotangent in zip(outputs.branches, branches, cotangents[1:], strict=True):
            grads[name] = gradients([output], [cotangent])
            so_far = grads.get(_BRANCHES, [None] * len(weights))
            grads[_BRANCHES] = [_add(a, b) for a, b in zip(so_far, grads[name], strict=True)]
    else:
        grads[_BRANCHES] = gradients(branches, cotangents[1:])
    is_vanilla = vanilla is not None and torch.equal(vanilla[0], cotangents[0])
    if vanilla is not None and not is_vanilla:
        grads[_VANILLA] = gradients(mains, vanilla)
    grads[MAIN] = gradients(mains, cotangents[:1], last=True)
    return grads | {_VANILLA: grads[MAIN]} if is_vanilla else grads


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _layer(
    name: str, module: nn.Module, weights: Sequence[Tensor], grads: dict[Any, Sequence[Tensor | None]]
) -> LayerGradient:
    total, main = _flat(weights, grads[_TOTAL]), _flat(weights, grads[MAIN])
    through_branches = _flat(weights, grads.get(_BRANCHES, [None] * len(weights)))
    norms = main.norm().item(), through_branches.norm().item()
    vanilla = _flat(weights, grads[_VANILLA]) if _VANILLA in grads else None
    return LayerGradient(
        name=name,
        kind=type(module).__name__,
        weight_norm=_flat(weights, weights).norm().item(),
        gradient_norm=total.norm().item(),
        terms={str(t): _flat(weights, g).norm().item() for t, g in grads.items() if isinstance(t, str)},
        branch_norm=norms[1],
        vanilla_norm=None if vanilla is None else vanilla.norm().item(),
        vanilla_zero=None if vanilla is None else int((vanilla == 0).sum()),
        cosine=(main @ through_branches).item() / (norms[0] * norms[1]) if all(norms) else None,
        num_weights=total.numel(),
        num_zero=int((total == 0).sum()),
        num_nan=int(total.isnan().sum()),
        num_inf=int(total.isinf().sum()),
    )


def _histogram(grads: dict[Any, Sequence[Tensor | None]], weights: Sequence[Tensor]) -> Histogram | None:
    """The gradients of the first weights among those measured, in bins around 0."""
    found = {"vanilla": _VANILLA, "whole loss": _TOTAL} if _BRANCHES in grads else {"whole loss": _TOTAL}
    values = {name: _flat(weights, grads[of][: len(weights)]).cpu() for name, of in found.items()}
    largest = torch.cat(list(values.values())).abs().max().item()  # NaN, wherever one is
    if not 0 < largest < math.inf:
        return None
    edges = torch.linspace(-largest, largest, NUM_BINS + 1, dtype=torch.float64)
    counts = {name: value.histogram(edges).hist.int().tolist() for name, value in values.items()}
    return Histogram(edges.tolist(), counts)


def _flat(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """All of a layer's gradients as one vector, in float64."""
    both = zip(weights, gradients, strict=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g.detach()).double().flatten() for w, g in both])

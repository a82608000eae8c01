r"""Measure the gradient of every layer on one batch, by the outputs it comes through, and the activity of the neurons.

The gradient of a layer is the sum of the gradients that reach it through the main output and through each branch,

$$\frac{\partial L}{\partial w} = \sum_{o \in \{O, O_1, \dots, O_K\}}
  \Big(\frac{\partial o}{\partial w}\Big)^{\!\top} \frac{\partial L}{\partial o},$$

so the loss is differentiated once with respect to the outputs, however it combines them, and the network once for every
output. Vanilla training would see the gradient of the main output's own loss. With `"additive"` losses this is the part
through the main output, with `"convex"` ones that part over $1 - c$. With added logits it is neither, since the
main output's gradient then depends on the branches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortback.choices import Backend, Layout
from shortback.errors import UserError
from shortback.health.activity import Observer
from shortback.health.graph import gradients
from shortback.health.layers import Layer, in_order, layers_of, order_of_calls
from shortback.health.measurement import MAIN, Histogram, LayerGradient, Measurement
from shortback.health.neurons import is_of_libraries, neurons_of, time_of
from shortback.health.remembering import check_graph_is_new, remembers
from shortback.inspection.backends import with_backend
from shortback.inspection.generators import generators_kept
from shortback.inspection.layout import logits_of
from shortback.inspection.mistakes import check_batch, explaining, refuse_compiled
from shortback.inspection.pointwise import patched_strided_1x1
from shortback.inspection.reset import explaining_stale_graph, reset_states
from shortback.inspection.trunk import trunk_of
from shortback.inspection.untouched import in_training, modes_kept, undisturbed
from shortback.losses import CrossEntropy, mean_over_time
from shortback.outputs import LossTerms, Outputs
from shortback.spiking import SpikingNetwork
from shortback.targets import check_target

NUM_BINS = 81  # odd, so that 0 is in the middle of a bin


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
    """Measure gradients and neurons with two forwards in training mode, and a backward for the loss and each output.

    Runs in the caller's precision and autocast. Parameters, their `.grad`, buffers, modes, hooks and the random state
    are left as they were.

    Args:
        net: a network that `attach` returned, or one without branches.
        x: a batch for the network, `[N, ...]` or with time, such as `[T, N, ...]`.
        target: its classes `[N]` or probabilities `[N, K]`.
        loss: a function of outputs, target and coefficient, such as `ShortcutLoss`.
        coefficient: the coefficient of the branches.
        by_branch: whether to measure each branch and vanilla training separately, not just all branches together, and
            to check whether neurons are silent in `eval()` and whether the network remembers its last batch.
        backend: the backend of all neurons for this measurement; by default each uses its own. The reference needs no
            compilation, but about ten times as much memory.

    Returns:
        The gradient of every layer with weights and the activity of every layer of neurons, from the input on.

    Raises:
        ValueError: the network or the batch cannot be measured; the message says why.
    """
    trunk = _trunk(net)
    _refuse_unsuitable(net, trunk, x, target)
    layers, num_samples = layers_of(trunk), len(target)
    with with_backend("reference", trunk), explaining(trunk, x, what="batch"):
        watched = neurons_of(trunk, trunk_of(net), x)
        time = time_of(net, trunk, watched, x, num_samples=num_samples)

    def make_observer() -> Observer:
        return Observer(num_samples, watched.neurons, time.layouts, which=watched.which, unknown=time.unknown)

    observer = make_observer()
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        with_backend(backend, trunk),
        undisturbed(net, x),
        patched_strided_1x1(trunk),
    ):
        x, target = (t.clone() if t.is_inference() else t for t in (x, target))
        silent = _silent_in_eval(net, x, make_observer(), time.output) if by_branch else set()
        # First with hooks on every module, then without, so that the graph keeps for backward what training keeps. Both
        # draw the same numbers.
        with generators_kept(x), torch.no_grad(), observer.observe(), order_of_calls(layers) as called:
            reset_states(net)
            with explaining(trunk, x, what="batch"):
                before = _outputs(in_training(net)(x.clone()), time.output)  # cloned: some networks change it in place
        with observer.observe_gradients():
            reset_states(net)
            outputs = _outputs(net(x.clone()), time.output)
        differs = by_branch and not torch.allclose(before.logits, outputs.logits, equal_nan=True)
        if not any(output.requires_grad for output in _all(outputs)):
            raise UserError(
                f"no output of {type(trunk).__name__} leads back to trainable weights: its forward is cut off, "
                "as by torch.no_grad() or detach(), or does not use them"
            )
        if isinstance(getattr(loss, "main", loss), CrossEntropy):
            check_target(outputs.logits, target)
        terms, cotangents = _differentiate(loss, outputs, target, coefficient)
        vanilla = _differentiate(loss, Outputs(outputs.logits, {}), target, coefficient)[1] if by_branch else None
        layers = in_order(layers, called, _all(outputs))
        weights = [weight for layer in layers for weight in layer.weights]
        with explaining_stale_graph():
            grads = _backward(outputs, cotangents, weights, observer=observer, vanilla=vanilla)
        activities = observer.activities()
        does_remember = False
        if differs and not is_of_libraries(trunk):
            check_graph_is_new(net, x, lambda: _all(_outputs(net(x.clone()), time.output)), weights)
            does_remember = remembers(trunk_of(net), x)
        fires_here_alone = (each.name for each in activities if each.firing_rate and each.name in silent)
    measured, unused, start, first = [], [], 0, None
    for layer in layers:
        end = start + len(layer.weights)
        mine = {term: found[start:end] for term, found in grads.items()}
        start = end
        if all(gradient is None for gradient in mine[_TOTAL]):
            unused.append(layer.name)
            continue
        measured.append(_layer(layer, mine))
        if by_branch and len(measured) == 1:
            first = _histogram(layer.weights, mine)
    if any(layer.num_nan for layer in measured) and x.isnan().any():
        raise UserError(f"the batch has {int(x.isnan().sum())} NaN, which reach the gradient: clean the data")
    losses = {MAIN: terms.main.item(), **{name: term.item() for name, term in terms.branches.items()}}
    return Measurement(
        layers=measured,
        neurons=activities,
        loss=terms.total.item(),
        losses=losses,
        coefficient=float(coefficient),
        num_samples=num_samples,
        unused=unused,
        silent_in_eval=next(fires_here_alone, None),
        first_layer=first,
        unseen=observer.unseen(),
        remembers=does_remember,
    )


@torch.no_grad()
def _silent_in_eval(net: nn.Module, x: Tensor, observer: Observer, layout: Layout) -> set[str]:
    """Neurons that never fire in `eval()`, if all samples get the same output there although norms have statistics."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not any(norm.num_batches_tracked for norm in norms):
        return set()
    reset_states(net)
    try:
        with modes_kept(net), observer.observe():
            logits = mean_over_time(_outputs(net.eval()(x.clone()), layout).logits)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a network may behave differently in eval() and fail there
        return set()
    if len(logits) < 2 or not torch.equal(logits, logits[:1].expand_as(logits)):
        return set()
    return {activity.name for activity in observer.activities() if not activity.firing_rate}


# Keys beside the names of outputs; objects, since a network may use any name.
_TOTAL, _BRANCHES, _VANILLA = object(), object(), object()


def _trunk(net: nn.Module) -> nn.Module:
    """The network itself, without its branches and without the `SpikingNetwork` wrapper."""
    model = trunk_of(net)
    return model.network if isinstance(model, SpikingNetwork) else model


def _refuse_unsuitable(net: nn.Module, trunk: nn.Module, x: Tensor, target: Tensor) -> None:
    refuse_compiled(net)
    if not any(p.requires_grad and p.ndim >= 2 for p in trunk.parameters()):
        raise UserError(f"{type(trunk).__name__} has no trainable weights: there is no gradient to measure")
    check_batch(x, what="batch")
    if not isinstance(target, Tensor):
        raise UserError(f"the target is a {type(target).__name__}: make it a tensor, torch.as_tensor(target)")
    if not target.ndim:
        raise UserError("the target is a single number: give one for each sample, as in target.reshape(1) for one")
    if len(target) == 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in trunk.modules()):
        raise UserError("a batch of one sample under batch norm says nothing about training: give two or more")


def _outputs(outputs: Any, layout: Layout) -> Outputs:
    return outputs if isinstance(outputs, Outputs) else Outputs(logits_of(outputs, layout, None), {})


def _all(outputs: Outputs) -> list[Tensor]:
    return [outputs.logits, *outputs.branches.values()]


def _differentiate(
    loss: Callable[..., LossTerms], outputs: Outputs, target: Tensor, coefficient: float
) -> tuple[LossTerms, list[Tensor]]:
    """The loss, and its gradient with respect to every output, the main one first."""
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
    """The gradients of the weights: of the whole loss, through the main output, and through all branches together.

    If `vanilla` is given (the gradient of the main output's own loss with respect to this output), also through each
    branch, and of vanilla training.
    """
    mains, branches = [outputs.logits], list(outputs.branches.values())
    observer.records_gradients = True
    total = gradients([*mains, *branches], weights, cotangents, keep=bool(branches))
    grads: dict[Any, Sequence[Tensor | None]] = {_TOTAL: total}
    observer.records_gradients = False
    if not branches:
        return {**grads, MAIN: grads[_TOTAL], _VANILLA: grads[_TOTAL]}
    if vanilla is not None:
        for name, output, cotangent in zip(outputs.branches, branches, cotangents[1:], strict=True):
            grads[name] = gradients([output], weights, [cotangent], keep=True)
            so_far = grads.get(_BRANCHES, [None] * len(weights))
            grads[_BRANCHES] = [_add(a, b) for a, b in zip(so_far, grads[name], strict=True)]
    else:
        grads[_BRANCHES] = gradients(branches, weights, cotangents[1:], keep=True)
    is_vanilla = vanilla is not None and torch.equal(vanilla[0], cotangents[0])
    if vanilla is not None and not is_vanilla:
        grads[_VANILLA] = gradients(mains, weights, vanilla, keep=True)
    grads[MAIN] = gradients(mains, weights, cotangents[:1], keep=False)
    return grads | {_VANILLA: grads[MAIN]} if is_vanilla else grads


def _add(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def _layer(layer: Layer, grads: dict[Any, Sequence[Tensor | None]]) -> LayerGradient:
    weights = layer.weights
    total, main = _flat(weights, grads[_TOTAL]), _flat(weights, grads[MAIN])
    through_branches = _flat(weights, grads.get(_BRANCHES, [None] * len(weights)))
    norms = main.norm().item(), through_branches.norm().item()
    vanilla = _flat(weights, grads[_VANILLA]) if _VANILLA in grads else None
    return LayerGradient(
        name=layer.name,
        kind=type(layer.module).__name__,
        weight_norm=_flat(weights, weights).norm().item(),
        gradient_norm=total.norm().item(),
        terms={str(t): _flat(weights, g).norm().item() for t, g in grads.items() if isinstance(t, str)},
        branch_norm=norms[1],
        vanilla_norm=None if vanilla is None else vanilla.norm().item(),
        vanilla_zero=None if vanilla is None else int((vanilla == 0).sum()),
        vanilla_nan=None if vanilla is None else int(vanilla.isnan().sum()),
        vanilla_inf=None if vanilla is None else int(vanilla.isinf().sum()),
        cosine=(main @ through_branches).item() / (norms[0] * norms[1]) if all(norms) else None,
        num_weights=total.numel(),
        num_zero=int((total == 0).sum()),
        num_nan=int(total.isnan().sum()),
        num_inf=int(total.isinf().sum()),
    )


def _histogram(weights: Sequence[Tensor], grads: dict[Any, Sequence[Tensor | None]]) -> Histogram | None:
    """Histograms of the gradient of a layer's weights, in bins around 0; None if it is all 0 or not finite."""
    found = {"vanilla": _VANILLA, "whole loss": _TOTAL} if _BRANCHES in grads else {"whole loss": _TOTAL}
    values = {name: _flat(weights, grads[of]).cpu() for name, of in found.items()}
    largest = torch.cat(list(values.values())).abs().max().item()  # NaN if any gradient is
    if not 0 < largest < math.inf:
        return None
    edges = torch.linspace(-largest, largest, NUM_BINS + 1, dtype=torch.float64)
    counts = {name: value.histogram(edges).hist.int().tolist() for name, value in values.items()}
    return Histogram(edges.tolist(), counts)


def _flat(weights: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Tensor:
    """All gradients of a layer as one vector in float64; 0 where there is none."""
    both = zip(weights, gradients, strict=True)
    return torch.cat([(torch.zeros_like(w) if g is None else g.detach()).double().flatten() for w, g in both])

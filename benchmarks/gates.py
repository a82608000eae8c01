"""The checks before any timing: outputs and gradients must agree, in float64, where no rounding flips a spike.

In float32 two correct networks may differ widely: a membrane within rounding error of the threshold may fire in one and
not in the other, which changes everything after it.
"""

from __future__ import annotations

import importlib
from dataclasses import replace

import torch
from torch import Tensor, nn

import shortback as sb
from harness import DisagreementError
from workloads import Variant, Workload, batch, build

TOLERANCE = 1e-9


def reference(work: Workload, *variants: Variant) -> dict[str, float]:
    """Check loss and gradient of our variants, in training, against the same network with reference neurons.

    A variant with a whole compiled model is checked with compiled neurons instead, which saves minutes.
    """
    differences = {}
    for variant in variants:
        ours = build(work, replace(variant, compile="neuron")).double()
        slow = build(work, replace(variant, compile="off", channels_last=False, memory=None)).double()
        x, y = batch(work, variant, size=2)
        (loss, gradient), (slow_loss, slow_gradient) = (_backward(net, x.double(), y) for net in (ours, slow))
        what = " ".join(filter(None, (variant.branches and f"branches at {variant.branches}", variant.memory)))
        differences[f"loss {what}".strip()] = difference("loss", loss, slow_loss)
        differences[f"gradient {what}".strip()] = difference("gradient", gradient, slow_gradient)
    return differences


def inference(work: Workload, variant: Variant) -> dict[str, float]:
    """Check the logits of our variant, in `eval()`, against the same network with reference neurons."""
    logits = []
    for each in (replace(variant, compile="neuron"), replace(variant, compile="off", channels_last=False, memory=None)):
        net, (x, _) = build(work, each).double(), batch(work, each, size=2)
        settle(net, x.double())
        with torch.inference_mode():
            logits.append(net.eval()(x.double()))
    return {"inference": difference("logits in eval()", *logits)}


def peer(work: Workload, library: str) -> dict[str, float]:
    """Check a peer's network against ours: logits in `eval()`, and the gradient in training if it has our surrogate."""
    ours = build(work, Variant(compile="off", channels_last=False))
    x, y = work.images(2)
    settle(ours, x)
    theirs = importlib.import_module(f"peers.{library}").build(ours).double()
    x = x.double()
    with torch.no_grad():
        logits = [net.eval()(x) for net in (ours.double(), theirs)]
    differences = {"logits": difference("logits", *logits)}
    if library == "spikingjelly":
        gradients = [_backward(net.train(), x, y)[1] for net in (ours, theirs)]
        differences["gradient"] = difference("gradient", *gradients)
    return differences


def neuron(neuron: sb.LIF, x: Tensor, gradient: Tensor) -> dict[str, float]:
    """Check a single neuron against the reference in float64: spikes that differ, and the gradient of the input.

    The neuron gets the timed input in its own precision, so that a few spikes may flip and gradients are rounded.
    """
    reference = sb.LIF(neuron.num_steps, decay=neuron.decay, backend="reference")
    spikes, gradients = [], []
    for one, dtype in ((neuron, x.dtype), (reference, torch.float64)):
        current = x.detach().to(dtype).requires_grad_()
        out = one(current)
        spikes.append(out.detach().double())
        gradients.append(torch.autograd.grad(out, current, gradient.to(dtype))[0].double())
    flipped = (spikes[0] != spikes[1]).double().mean().item()
    if flipped > 1e-5:
        raise DisagreementError(f"{flipped:.2%} of the spikes differ from the reference")
    return {"flipped_spikes": flipped, "gradient": difference("gradient", *gradients, tolerance=1e-2)}


def bit_equal(what: str, a: Tensor, b: Tensor) -> dict[str, float]:
    """Check that two outputs are the same to the last bit."""
    if not torch.equal(a, b):
        raise DisagreementError(f"{what} are not bit-equal")
    return {what: 0.0}


def difference(what: str, a: Tensor, b: Tensor, *, tolerance: float = TOLERANCE) -> float:
    """The distance of two tensors over the norm of the second; its first rows must differ, or nothing fires."""
    if b.ndim and torch.equal(b[0], b[1]):
        raise DisagreementError(f"{what}: the first two rows are the same, so nothing seems to fire")
    distance = ((a - b).norm() / b.norm()).item()
    if not distance <= tolerance:
        raise DisagreementError(f"{what}: the difference is {distance:.2e} of the norm, above {tolerance:.0e}")
    return distance


@torch.no_grad()
def settle(net: nn.Module, x: Tensor) -> None:
    """Set the norms' running statistics to those of a batch, so that in `eval()` neurons fire as in training."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average, here of a single batch
    net.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _backward(net: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and the gradient of the first convolution's weight, which depends on all other gradients."""
    weight = next(p for p in net.parameters() if p.ndim == 4)
    loss = sb.shortcut_loss(net(x), y, coefficient=0.5).total
    return loss.detach(), torch.autograd.grad(loss, weight)[0]

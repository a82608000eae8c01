"""The two kernels of a layer: from the convolution's output to spikes, and back; `layer.py` calls them."""

from __future__ import annotations

import torch
from torch import Tensor

from shortback.ops import kernels, packing
from shortback.ops.kernels import Kind


def _currents(kind: Kind, z: Tensor, *, scale: Tensor, shift: Tensor, residual: Tensor | None) -> list[Tensor]:
    """Return the neuron's current at each step, in float32 or float64; the residual may be packed spikes."""
    currents = [step.to(scale.dtype) * scale + shift for step in z.unbind(0)]
    if len(currents) < kind.num_steps:
        currents = [currents[0] for _ in range(kind.num_steps)]  # Dynamo up to torch 2.11 cannot trace `*=` of a list
    if residual is None:
        return currents
    packed = residual.dtype == torch.uint8
    steps = packing.unpack_steps(residual, kind.num_steps) if packed else residual.unbind(0)
    return [x + r.to(x.dtype) for x, r in zip(currents, steps, strict=True)]


def forward(
    kind: Kind,
    packs: bool,
    z: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    decay: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Return the spikes `[T, N, S, C]` of `z` `[T, N, S, C]` (`[1, N, S, C]` if static), and their bits if `packs`."""
    currents = _currents(kind, z, scale=scale, shift=shift, residual=residual)
    fired = kernels.integrate(kind, currents, decay=decay, initial=None).fired
    return kernels.as_spikes(fired, z.dtype), packing.pack_fired(fired) if packs else None


def backward(
    kind: Kind,
    z: Tensor,
    scale: Tensor,
    shift: Tensor,
    residual: Tensor | None,
    decay: Tensor | None,
    grad_spikes: Tensor,
    grad_average: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Compute the gradients of the normalised `z`, the residual and the decay from the spikes' gradient.

    Args:
        scale, shift: of the norm, `[1, N, 1, C]`.
        grad_average: gradient of the mean over steps and pixels, divided by their number, `[1, N, 1, C]`.
    """
    currents = _currents(kind, z, scale=scale[0], shift=shift[0], residual=residual)
    grads = kernels.walk_back(
        kind,
        kernels.integrate(kind, currents, decay=decay, initial=None),
        grad_spikes=[grad.to(scale.dtype) + grad_average[0] for grad in grad_spikes.unbind(0)],
        grad_state=None,
        decay=decay,
    )
    by_step = torch.stack([grad.to(z.dtype) for grad in grads.currents])
    if z.shape[0] == kind.num_steps:
        return by_step, None if residual is None else by_step, grads.decay
    return kernels.total(grads.currents)[None].to(z.dtype), None, grads.decay  # the same current at every step

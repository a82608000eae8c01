"""Explain common mistakes in a batch of images, in place of an error from deep inside PyTorch."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.inspection.backends import with_backend
from shortback.inspection.hooks import hooked
from shortback.inspection.layout import first_tensor, num_features
from shortback.inspection.untouched import undisturbed
from shortback.torch_private import is_compiled

log = logging.getLogger("shortback")


def refuse_compiled(net: nn.Module) -> None:
    """Raise `UserError` if a network, or a part of it, is compiled."""
    if any(map(is_compiled, net.modules())):
        raise UserError("the network is compiled, so hooks would not run: pass the network before torch.compile")


def check_batch(x: object, *, what: str = "sample") -> Tensor:
    """Check that a batch is a tensor with samples in it, and warn about pixels that were not normalised.

    Args:
        x: the batch as the user passed it.
        what: what to call it in messages.

    Raises:
        ValueError: `x` is not a tensor, or is empty; the message says what to do.
    """
    if not isinstance(x, Tensor):
        hint = ""
        if isinstance(x, tuple | list | dict):
            hint = (
                f" of {len(x)}: give the images alone; wrap a network with several inputs in a module that takes one "
                "tensor and splits it, def forward(self, x): return self.network(x[:, :3], x[:, 3:])"
            )
        elif type(x).__module__ == "numpy":
            hint = ": convert it with torch.from_numpy(...)"
        raise UserError(f"the {what} is a {type(x).__name__}{hint}; a tensor is needed, samples first")
    if not x.numel() or not x.ndim:
        raise UserError(f"the {what} is empty: its shape is {list(x.shape)}")
    if not x.is_meta and x.is_floating_point() and x.ndim >= 4 and 128 <= x.max() <= 255 and x.min() >= 0:
        log.warning(
            "the %s has values up to %g: pixels from 0 to 255 make every neuron fire; divide by 255 and normalise",
            *(what, x.max().item()),
        )
    return x


@contextmanager
def explaining(model: nn.Module, x: Tensor, *, what: str = "sample") -> Iterator[None]:
    """If a forward pass inside the block fails, say what is wrong with its input, if that can be seen.

    A network may cast or permute its input itself, so nothing that runs is refused. If the first layer accepts the
    input, only a missing batch axis is reported.

    Raises:
        ValueError: the input has another dtype, device or number of channels than the weights expect, its channels
            last, no batch axis, or a surplus time axis, or a layer is given a tuple; the original error is quoted at
            the end.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        itself = str(error).strip().partition("\n")[0]
        if isinstance(error, TypeError) and re.search(r"got \(tuple|must be Tensor, not tuple", itself):
            raise UserError(
                "a layer was given the tuple that a module before it returned: take the spikes out of a neuron's "
                f"(spikes, membrane), or with snnTorch in a Sequential pass init_hidden=True ({itself[:80]} ...)"
            ) from error
        reason = _mistake(model, x)
        if reason is None:
            raise
        raise UserError(f"the {what} {reason} ({type(error).__name__}: {itself})") from error


def _mistake(model: nn.Module, x: Tensor) -> str | None:
    layer, given, is_taken = _first_call(model, x)
    shape, is_alone = list(x.shape), isinstance(layer, nn.Conv2d) and given.shape == x.shape and x.ndim == 3
    alone = f"{shape} is one image without a batch: pass x.unsqueeze(0), or better several" if is_alone else None
    weight = next(_matrices(layer or model), None)
    if is_taken and weight is not None and given.device == weight.device:
        return alone
    if weight is not None and given.device == x.device != weight.device:
        return f"is on {x.device}, and the weights are on {weight.device}: pass x.to({str(weight.device)!r})"
    if weight is None or isinstance(layer, nn.Embedding | nn.EmbeddingBag):
        return None
    names = [str(t.dtype).removeprefix("torch.") for t in (x, weight)]
    if given.dtype == x.dtype and not x.is_floating_point():
        return f"is {names[0]}, and the weights are {names[1]}: pass x.float() / 255, normalised as for training"
    is_cast = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    if given.dtype == x.dtype != weight.dtype and not is_cast:
        return f"is {names[0]}, and the weights are {names[1]}: pass x.to(torch.{names[1]})"
    if isinstance(layer, nn.Conv2d) and given.shape == x.shape and x.ndim == 5:
        return (
            f"{shape} has more axes than the first convolution takes: if the network loops in time, give it one step, "
            "[N, C, H, W]; with SpikingJelly call functional.set_step_mode(net, 'm')"
        )
    if not isinstance(layer, nn.Conv2d) or x.ndim < 4 or given.shape[-3:] != x.shape[-3:]:
        return alone
    if shape[-1] == layer.in_channels != shape[-3]:
        return f"{shape} has its channels last, and the first convolution expects them third from the end: permute it"
    if shape[-3] != layer.in_channels:
        return f"{shape} has {shape[-3]} channels, and the first convolution takes {layer.in_channels}"
    return None


def _first_call(model: nn.Module, x: Tensor) -> tuple[nn.Module | None, Tensor, bool]:
    """The first layer that is called, its input, and whether it accepts that.

    If the forward pass fails before any layer, these are the first `Conv2d` of the network, if any, `x`, and False.
    """
    called: list[tuple[nn.Module, Tensor]] = []
    taken: list[nn.Module] = []

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        called.append((module, given if (given := first_tensor(inputs)) is not None else x))

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        taken.append(module)

    layers = [m for m in model.modules() if num_features(m) is not None or not [*m.children()]]
    layers = [m for m in layers if next(_matrices(m), None) is not None]
    hooks = [(layer, before) for layer in layers]
    try:
        with undisturbed(model, x), torch.no_grad(), with_backend("reference", model):
            model.eval()
            with hooked(hooks, before=True), hooked((layer, after) for layer in layers):
                model(x.clone())
    except Exception:  # the very error that is being explained
        pass
    if not called:
        return next((module for module in layers if isinstance(module, nn.Conv2d)), None), x, False
    layer, given = called[0]
    return layer, given, taken[:1] == [layer]


def _matrices(module: nn.Module) -> Iterator[Tensor]:
    return (p for p in module.parameters() if p.ndim >= 2 and p.is_floating_point())

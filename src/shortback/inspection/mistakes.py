"""What newcomers pass for a batch of images, told in the place of an error from deep inside PyTorch."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from shortback.errors import UserError

log = logging.getLogger("shortback")


def check_batch(x: object, *, what: str = "sample") -> Tensor:
    """See that it is a tensor with samples in it, and warn of pixels that nobody normalised.

    Args:
        x: what a user gave.
        what: it is called in messages.

    Raises:
        ValueError: no tensor, or an empty one, and what to do about it.
    """
    if not isinstance(x, Tensor):
        hint = ""
        if isinstance(x, tuple | list | dict):
            hint = (
                f" of {len(x)}: give the images alone; wrap a network of several inputs in a module that takes one "
                "tensor and parts it, def forward(self, x): return self.network(x[:, :3], x[:, 3:])"
            )
        elif type(x).__module__ == "numpy":
            hint = ": make it a tensor, torch.from_numpy(...)"
        raise UserError(f"the {what} is a {type(x).__name__}{hint}; a tensor is needed, samples first")
    if not x.numel() or not x.ndim:
        raise UserError(f"the {what} is empty: its shape is {list(x.shape)}")
    if x.is_floating_point() and x.ndim >= 4 and 128 <= x.max() <= 255 and x.min() >= 0:
        log.warning(
            "the %s has values up to %g: pixels from 0 to 255 make every neuron fire; divide by 255 and normalise",
            *(what, x.max().item()),
        )
    return x


@contextmanager
def explaining(model: nn.Module, x: Tensor, *, what: str = "sample") -> Iterator[None]:
    """Where a forward within the block fails, say what is wrong with its input, if that is to be seen.

    A network may take anything, and cast or permute it by itself: nothing is refused that runs.

    Raises:
        ValueError: the input has another dtype than the weights, channels last, or one sample without a batch.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _mistake(model, x)
        if reason is None:
            raise
        raise UserError(f"the {what} {reason}") from error


def _mistake(model: nn.Module, x: Tensor) -> str | None:
    weight = next((p for p in model.parameters() if p.ndim >= 2 and p.is_floating_point()), None)
    if weight is None:
        return None
    shape, names = list(x.shape), [str(t.dtype).removeprefix("torch.") for t in (x, weight)]
    if not x.is_floating_point() and any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in model.modules()):
        return None
    if not x.is_floating_point():
        return f"is {names[0]}, and the weights are {names[1]}: pass x.float() / 255, normalised as for training"
    if x.dtype != weight.dtype and not (torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64):
        return f"is {names[0]}, and the weights are {names[1]}: pass x.to(torch.{names[1]})"
    conv: Any = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if conv is not None and x.ndim >= 4 and shape[-1] == conv.in_channels != shape[-3]:
        return f"{shape} has its channels last, and the first convolution takes them third from the end: permute it"
    if conv is not None and x.ndim >= 4 and shape[-3] != conv.in_channels:
        return f"{shape} has {shape[-3]} channels, and the first convolution takes {conv.in_channels}"
    if conv is not None and x.ndim == 3 and shape[0] == conv.in_channels:
        return f"{shape} is one image without a batch: pass x.unsqueeze(0), or better several"
    return None

"""What a comparison is made of, in words that are the same in every process: settings, network, data and optimizer."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def settings_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, without what is another object in every process: functions, loggers and the like."""
    words = {key: repr(value) for key, value in settings.items()}
    return {key: word for key, word in words.items() if not _ADDRESS.search(word)}


def network_in_words(model: nn.Module) -> str:
    """Its class, its size, and a digest of its layers, of the shapes of its tensors and of how large they are.

    Of a tensor that is the sum of the absolute values to four digits: another processor may round weights otherwise.
    """
    count, digest = 0, hashlib.sha256(_ADDRESS.sub("", repr(model)).encode())
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"\n{name}".encode())
        if not is_lazy(tensor):
            size = float(tensor.detach().cpu().abs().sum(dtype=torch.float64))
            digest.update(f" {tensor.dtype} {list(tensor.shape)} {size:.4g}".encode())
            count += tensor.numel()
    return f"{type(model).__name__}, {count} numbers, digest {digest.hexdigest()[:12]}"


def data_in_words(loader: Any, sample: Tensor | None = None) -> str:
    """How much a loader brings, where it says so, and the shape of a batch; nothing is drawn from it."""
    if loader is None:
        return "none"
    parts = {"batches": _length(loader), "samples": _length(getattr(loader, "dataset", None))}
    words = [f"{count} {name}" for name, count in parts.items() if count is not None]
    if sample is not None:
        words.append(f"the first batch {sample.dtype} {list(sample.shape)}")
    return ", ".join(words) or type(loader).__name__


def optimizer_in_words(optimizer: torch.optim.Optimizer | None) -> str:
    """Its class and its settings, those of groups too that have some of their own."""
    if optimizer is None:
        return "the usual one"
    groups = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    own = [group for group in groups if any(optimizer.defaults.get(key) != value for key, value in group.items())]
    return _ADDRESS.sub("", f"{type(optimizer).__name__} {optimizer.defaults}" + (f", groups {own}" if own else ""))


def _length(counted: Any) -> int | None:
    try:
        return len(counted)
    except TypeError:
        return None

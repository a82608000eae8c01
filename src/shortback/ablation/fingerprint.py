"""Describe a comparison's settings, network, data and optimizer in words that are the same in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from shortback.training.draws import Draws

_ADDRESS = re.compile(" at 0x[0-9a-f]+")


def settings_in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings as text, without objects whose text differs between processes: functions, loggers and the like."""
    words = {key: repr(value) for key, value in settings.items()}
    return {key: word for key, word in words.items() if not _ADDRESS.search(word)}


def network_in_words(model: nn.Module, *, without: Collection[str] = ()) -> dict[str, str]:
    """A network's class and size, digests of its layers and of its values, and the plain numbers of its modules.

    Args:
        model: as `make` returns it.
        without: names of tensors and numbers to leave out, from `irreproducible_names`.
    """
    tensors = list(_tensors(model))
    layers = [f"{name} {type(module).__name__}" for name, module in model.named_modules()]
    layers += [f"{name} {tensor.dtype} {_shape(tensor)}" for name, tensor in tensors]
    values = [f"{name} {_size(tensor)}" for name, tensor in tensors if name not in without]
    count = sum(tensor.numel() for _, tensor in tensors if not is_lazy(tensor))
    words = {"network": f"{type(model).__name__}, {count} numbers"}
    words |= {"network.layers": f"digest {_digest(layers)}", "network.values": f"digest {_digest(values)}"}
    return words | {f"network.{key}": word for key, word in _numbers(model).items() if key not in without}


def irreproducible_names(make: Callable[[], nn.Module], model: nn.Module, *, seed: int) -> list[str]:
    """Names of tensors and numbers that differ when a network is made again under the same seed of PyTorch.

    All generators are left as they were.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with Draws(None, seed=seed).drawing(), torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        other = make()
    ours, theirs = ({**_numbers(net), **{n: _size(tensor) for n, tensor in _tensors(net)}} for net in (model, other))
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def data_in_words(loader: Any, sample: Tensor | None = None) -> str:
    """A loader's numbers of batches and samples, if it has them, and its first batch; nothing is drawn from it."""
    if loader is None:
        return "none"
    parts = {"batches": _length(loader), "samples": _length(getattr(loader, "dataset", None))}
    words = [f"{count} {name}" for name, count in parts.items() if count is not None]
    if sample is not None:
        words.append(f"the first batch {sample.dtype} {list(sample.shape)}")
    return ", ".join(words) or type(loader).__name__


def optimizer_in_words(optimizer: torch.optim.Optimizer | None) -> dict[str, str]:
    """An optimizer's class, and its settings by name, each as the list of the values of all groups."""
    if optimizer is None:
        return {"optimizer": "the usual one"}
    found: dict[str, list[str]] = defaultdict(list)
    for group in optimizer.param_groups:
        for key, value in group.items():
            if key != "params" and not _ADDRESS.search(repr(value)):
                found[f"optimizer.{key}"].append(repr(value))
    return {"optimizer": type(optimizer).__name__, **_run_length(found)}


def differing_keys(now: Mapping[str, str], before: Mapping[str, Any]) -> list[str]:
    """The keys whose words differ, sorted; keys with a dot only if both sides have them.

    Another version of PyTorch may store more or fewer settings of a layer or optimizer. Of words in an older format,
    which had no such keys, only class and size are compared.
    """
    old = {"network": ", digest ", "optimizer": " {"}
    before = {key: word.partition(old[key])[0] if key in old else word for key, word in before.items()}
    keys = now.keys() | before.keys()
    both = now.keys() & before.keys()
    return sorted(key for key in keys if now.get(key) != before.get(key) and ("." not in key or key in both))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return itertools.chain(model.named_parameters(), model.named_buffers())


def _shape(tensor: Tensor) -> str:
    return "" if is_lazy(tensor) else str(list(tensor.shape))


def _size(tensor: Tensor) -> str:
    """The sum of the absolute values to four digits, since another processor may round weights differently."""
    if is_lazy(tensor):
        return ""
    try:
        wide = tensor.detach().cpu().to(torch.complex128 if tensor.is_complex() else torch.float64)
        return f"{float(wide.abs().sum()):.4g}"
    except RuntimeError:  # a kind of tensor without values, or that cannot be summed
        return "?"


def _numbers(model: nn.Module) -> dict[str, str]:
    """Numbers that are attributes of modules, such as the `p` of a dropout, listed by class and name."""
    found: dict[str, list[str]] = defaultdict(list)
    for module in model.modules():
        for key, value in vars(module).items():
            if not key.startswith("_") and key != "training":
                for name, word in _plain(key, value):
                    found[f"{type(module).__name__}.{name}"].append(word)
    return _run_length(found)


def _plain(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """A number, or a tuple of them, with its name; for a data class its class name, and its numbers and strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield key, type(value).__name__
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            words = [(f"{key}.{field.name}", inner)] if isinstance(inner, str) else _plain(f"{key}.{field.name}", inner)
            yield from words
    elif all(isinstance(one, bool | int | float) for one in (value if isinstance(value, tuple) else (value,))):
        yield key, json.dumps(value)  # writes NumPy's floats like Python's


def _run_length(found: Mapping[str, list[str]]) -> dict[str, str]:
    """The words of each key joined by commas; a word repeated in a row is written once, with its count."""
    runs = {key: [(word, len(list(same))) for word, same in itertools.groupby(words)] for key, words in found.items()}
    return {
        key: ", ".join(word if count == 1 else f"{word} ({count} times)" for word, count in those)
        for key, those in runs.items()
    }


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def _length(counted: Any) -> int | None:
    try:
        return len(counted)
    except TypeError:
        return None

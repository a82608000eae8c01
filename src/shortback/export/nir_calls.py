"""Map calls of functions and tensor methods to NIR operations, and refuse arguments that NIR cannot express."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx

from shortback.errors import UserError
from shortback.export.arguments import named

Kind = Literal["add", "flatten", "average", "same"]


@dataclass(frozen=True)
class _Known:
    """A function that NIR can express.

    Attributes:
        kind: the operation in NIR.
        parameters: names of the parameters that are accepted, tensors first.
        num_tensors: number of parameters that are tensors.
        neutral: by parameter, the values that have no effect; all others are refused.
        instead: what to write instead of a refused argument.
    """

    kind: Kind
    parameters: tuple[str, ...]
    num_tensors: int = 1
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    instead: str = "leave it out"


_AS_NUMPY = {"axis": "dim", "keepdims": "keepdim"}  # NumPy's names, which PyTorch accepts too
_NO_FACTOR = "write a + b, with the factor in the convolution or the norm before"
_ADD = _Known("add", ("input", "other"), 2, {"alpha": (1,), "out": (None,)}, _NO_FACTOR)
_ADD_TO = _Known("add", ("self", "other"), 2, {"alpha": (1,)}, _NO_FACTOR)
_MEAN = {"dtype": (None, torch.float32), "out": (None,)}
_DROPOUT = _Known(
    "same",
    ("input", "p", "training", "inplace"),
    neutral={"training": (False,)},
    instead="write nn.Dropout, or training=self.training, which drops nothing in eval()",
)

_FUNCTIONS: dict[Callable[..., Any], _Known] = {
    operator.add: _ADD,
    operator.iadd: _ADD,
    torch.add: _ADD,
    torch.flatten: _Known("flatten", ("input", "start_dim", "end_dim")),
    torch.mean: _Known("average", ("input", "dim", "keepdim"), neutral=_MEAN),
    F.adaptive_avg_pool2d: _Known("average", ("input", "output_size")),
    F.dropout: _DROPOUT,
}
_METHODS: dict[str, _Known] = {
    "add": _ADD_TO,
    "add_": _ADD_TO,
    "__add__": _ADD_TO,
    "flatten": _Known("flatten", ("self", "start_dim", "end_dim")),
    "mean": _Known("average", ("self", "dim", "keepdim"), neutral=_MEAN),
    "contiguous": _Known("same", ("self", "memory_format")),
}


def called(node: fx.Node) -> tuple[Kind, tuple[Any, ...]] | None:
    """The NIR operation of a call of a function or method, and its tensor arguments; None if NIR has no such operation.

    Raises:
        ValueError: an argument that NIR cannot express, such as the factor of `torch.add(a, b, alpha=3)`, or a number
            in place of a tensor.
    """
    known = _METHODS.get(str(node.target)) if node.op == "call_method" else _function(node.target)
    if known is None:
        return None
    kwargs = {_AS_NUMPY.get(name, name): value for name, value in node.kwargs.items()}
    arguments = named(known.parameters, node.args, kwargs)
    if node.target is F.dropout:  # training=True is its default, so that it drops in eval() too
        arguments.setdefault("training", True)
    for name, value in arguments.items():
        fits = name in known.parameters if name not in known.neutral else value in known.neutral[name]
        if not fits:
            written = f"argument {name}" if name.isdigit() else f"{name}={value}"
            what = getattr(node.target, "__name__", node.target)
            raise UserError(f"to_nir(): {node}: NIR has no {what} with {written}: {known.instead}")
    tensors = tuple(arguments.get(name) for name in known.parameters[: known.num_tensors])
    for tensor in tensors:
        if not isinstance(tensor, fx.Node):
            raise UserError(
                f"to_nir(): {node}: NIR adds outputs of nodes, not a number such as {tensor}: put it into the "
                "convolution, the norm or the linear layer before"
            )
    if known.kind == "average" and "output_size" not in arguments and not _is_over_pixels(arguments):
        return None
    return known.kind, tensors


def _function(target: object) -> _Known | None:
    return next((known for function, known in _FUNCTIONS.items() if function is target), None)


def _is_over_pixels(arguments: Mapping[str, Any]) -> bool:
    axes = arguments.get("dim")
    return isinstance(axes, tuple | list) and sorted(int(axis) for axis in axes) in ([2, 3], [-2, -1])

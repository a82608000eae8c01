"""ONNX, by PyTorch's own exporter: a batch of any size, the number of steps fixed."""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.export.program import check_sample, deployable, first_line, traced
from shortback.spiking import SpikingNetwork

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram


def to_onnx(model: SpikingNetwork, sample: Tensor, *, fold: bool = True) -> ONNXProgram:
    """The network as an ONNX graph from `input` to `logits`: `.save(file)` writes it.

    `shortback.export.write` checks it too.

    Args:
        sample: `[N, C, H, W]` or `[T, N, C, H, W]`, as the graph is to take it; the batch is free, the steps are not.
        fold: whether batch norms become part of the convolutions before them.

    Raises:
        ValueError: the extra `onnx` is not installed, or the network cannot be exported, with the reason.
    """
    need_extra("onnx", "onnx", "onnxscript")
    check_sample(model, sample)
    return onnx_of(deployable(model, fold=fold), sample)


def onnx_of(network: nn.Module, sample: Tensor) -> ONNXProgram:
    """A network that `torch.export` can follow, as ONNX; its first output is called `logits`."""
    program = traced(network, sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch and onnxscript have deprecated in each other
        try:
            exported = torch.onnx.export(
                program, dynamo=True, input_names=["input"], output_names=["logits"], verbose=False
            )
        except Exception as error:
            raise UserError(f"ONNX cannot express {type(network).__name__}: {first_line(error)}") from error
    assert exported is not None
    return exported


def need_extra(extra: str, *packages: str) -> None:
    """See that the packages of an extra are installed.

    Raises:
        ValueError: one is not; the extra is named.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed: pip install 'shortback[{extra}]'")

"""Export to ONNX with PyTorch's own exporter: the batch size is free, the number of steps is fixed."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from shortback.errors import UserError
from shortback.export.program import check_sample, deployable, first_line, traced
from shortback.extras import need_extra
from shortback.spiking import SpikingNetwork

if TYPE_CHECKING:
    from torch.onnx import ONNXProgram


def to_onnx(model: SpikingNetwork, sample: Tensor, *, fold: bool = True) -> ONNXProgram:
    """Convert a network to an ONNX program from `input` to `logits`; its method `save(file)` writes it.

    `shortback.export.write` also checks it.

    Args:
        sample: an input of the graph, `[N, C, H, W]` or `[T, N, C, H, W]`; the batch size is free, the number of steps
            is fixed.
        fold: whether to fold batch norms into the convolutions before them.

    Raises:
        ValueError: the extra `onnx` is not installed, or the network cannot be exported, with the reason.
    """
    need_extra("onnx", "onnx", "onnxscript")
    check_sample(model, sample)
    return onnx_of(deployable(model, fold=fold), sample)


def onnx_of(network: nn.Module, sample: Tensor) -> ONNXProgram:
    """Convert a network that `torch.export` can follow to ONNX; its first output is named `logits`."""
    program = traced(network, sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch and onnxscript use what the other has deprecated
        try:
            exported = torch.onnx.export(
                program, dynamo=True, input_names=["input"], output_names=["logits"], verbose=False
            )
        except Exception as error:
            raise UserError(f"ONNX cannot express {type(network).__name__}: {first_line(error)}") from error
    assert exported is not None
    return exported

"""From a trained network to where it runs: NIR, ONNX, `torch.export`, frame by frame; and what it costs there."""

from shortback.export.depth_exit import DepthExit
from shortback.export.early_exit import EarlyExit
from shortback.export.nir import to_nir
from shortback.export.onnx import to_onnx
from shortback.export.operations import Operations, count_operations
from shortback.export.program import to_program
from shortback.export.stream import Stream
from shortback.export.writing import write

__all__ = [
    "DepthExit",
    "EarlyExit",
    "Operations",
    "Stream",
    "count_operations",
    "to_nir",
    "to_onnx",
    "to_program",
    "write",
]

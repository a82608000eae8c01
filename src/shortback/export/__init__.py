"""Deploy a trained network: export to NIR, ONNX or `torch.export`, run it frame by frame, and estimate its cost."""

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

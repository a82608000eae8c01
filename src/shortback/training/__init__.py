"""Training on Lightning Fabric: the loop, its state, its checkpoints and its loggers."""

from shortback.training._evaluate import Evaluation, evaluate
from shortback.training._fit import fit
from shortback.training.batches import Batches, SeededBatches
from shortback.training.checkpoint import CheckpointError
from shortback.training.engine import Trainer
from shortback.training.execution import Execution, build_fabric, choose_execution, choose_num_workers
from shortback.training.loggers import JsonLines, Logger, TensorBoard, Terminal
from shortback.training.optim import WarmupCosine, build_optimizer
from shortback.training.outcome import FitResult, NonFiniteError
from shortback.training.plan import Plan
from shortback.training.signals import Interrupted

__all__ = [
    "Batches",
    "CheckpointError",
    "Evaluation",
    "Execution",
    "FitResult",
    "Interrupted",
    "JsonLines",
    "Logger",
    "NonFiniteError",
    "Plan",
    "SeededBatches",
    "TensorBoard",
    "Terminal",
    "Trainer",
    "WarmupCosine",
    "build_fabric",
    "build_optimizer",
    "choose_execution",
    "choose_num_workers",
    "evaluate",
    "fit",
]

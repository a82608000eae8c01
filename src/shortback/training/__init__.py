"""Training on Lightning Fabric: the loop, its state, its checkpoints and its loggers."""

from shortback.training.checkpoint import CheckpointError
from shortback.training.engine import FitResult, NonFiniteError, Trainer
from shortback.training.evaluate import Evaluation, evaluate
from shortback.training.execution import Execution, choose_execution, choose_num_workers
from shortback.training.loggers import JsonLines, Logger, TensorBoard, Terminal
from shortback.training.optim import WarmupCosine, build_optimizer
from shortback.training.plan import Plan
from shortback.training.signals import Interrupted

__all__ = [
    "CheckpointError",
    "Evaluation",
    "Execution",
    "FitResult",
    "Interrupted",
    "JsonLines",
    "Logger",
    "NonFiniteError",
    "Plan",
    "TensorBoard",
    "Terminal",
    "Trainer",
    "WarmupCosine",
    "build_optimizer",
    "choose_execution",
    "choose_num_workers",
    "evaluate",
]

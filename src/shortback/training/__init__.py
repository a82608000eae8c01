"""Training on Lightning Fabric: the loop, its state, its checkpoints and its loggers."""

from shortback.training._evaluate import Evaluation, evaluate
from shortback.training._fit import fit
from shortback.training.batches import Batches, SeededBatches
from shortback.training.checkpoint import CheckpointError
from shortback.training.engine import Trainer
from shortback.training.execution import Execution, build_fabric, choose_execution, choose_num_workers
from shortback.training.loggers import JsonLines, Logger, Terminal
from shortback.training.optim import WarmupCosine, build_optimizer
from shortback.training.outcome import FitResult, NonFiniteError
from shortback.training.plan import Plan
from shortback.training.rows import read_rows
from shortback.training.signals import Interrupted
from shortback.training.trackers import Csv, MLflow, TensorBoard, Tracker, WandB, make_tracker

__all__ = [
    "Batches",
    "CheckpointError",
    "Csv",
    "Evaluation",
    "Execution",
    "FitResult",
    "Interrupted",
    "JsonLines",
    "Logger",
    "MLflow",
    "NonFiniteError",
    "Plan",
    "SeededBatches",
    "TensorBoard",
    "Terminal",
    "Tracker",
    "Trainer",
    "WandB",
    "WarmupCosine",
    "build_fabric",
    "build_optimizer",
    "choose_execution",
    "choose_num_workers",
    "evaluate",
    "fit",
    "make_tracker",
    "read_rows",
]

"""Where runs were trained before `shortback.runs`; the names stay."""

from shortback.runs.evaluate import evaluate_run, load_run
from shortback.runs.train import train_recipe

__all__ = ["evaluate_run", "load_run", "train_recipe"]

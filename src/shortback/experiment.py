"""The former place of `shortback.runs`, kept for code that imports from here."""

from shortback.runs.evaluate import evaluate_run, load_run
from shortback.runs.train import train_recipe

__all__ = ["evaluate_run", "load_run", "train_recipe"]

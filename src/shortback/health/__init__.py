"""Measure the gradients and neurons of a network on a batch, and judge whether it can learn."""

from shortback.health.activity import NeuronActivity
from shortback.health.judgement import Judgement, judge
from shortback.health.measurement import LayerGradient, Measurement
from shortback.health.nonfinite import first_nonfinite
from shortback.health.probe import measure
from shortback.health.report import GradientReport, Suggestion
from shortback.health.samples import first_samples
from shortback.health.share import Balance, branch_share, first_layer_balance, main_over_branches, settled_ratio
from shortback.inspection.firing import firing_rates

__all__ = [
    "Balance",
    "GradientReport",
    "Judgement",
    "LayerGradient",
    "Measurement",
    "NeuronActivity",
    "Suggestion",
    "branch_share",
    "firing_rates",
    "first_layer_balance",
    "first_nonfinite",
    "first_samples",
    "judge",
    "main_over_branches",
    "measure",
    "settled_ratio",
]

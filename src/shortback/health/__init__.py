"""Measures of what a network, and its gradients, do."""

from shortback.health.firing import firing_rates
from shortback.health.nonfinite import first_nonfinite
from shortback.health.probe import branch_share

__all__ = ["branch_share", "firing_rates", "first_nonfinite"]

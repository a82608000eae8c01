"""Inspection of networks from any library by running them: neurons, layouts in time, states; no gradients."""

from shortback.inspection.firing import firing_rates
from shortback.inspection.libraries import register_reset
from shortback.inspection.reset import reset_states

__all__ = ["firing_rates", "register_reset", "reset_states"]

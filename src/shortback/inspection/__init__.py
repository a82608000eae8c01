"""Inspection of networks from any library by running them: neurons, layouts in time, states; no gradients."""

from shortback.inspection.libraries import register_reset
from shortback.inspection.reset import reset_states

__all__ = ["register_reset", "reset_states"]

"""Shortcut branches: attached for training, stripped for inference."""

from shortback.shortcuts._attach import attach
from shortback.shortcuts._strip import strip
from shortback.shortcuts.heads import linear_head
from shortback.shortcuts.network import ShortcutNetwork

__all__ = ["ShortcutNetwork", "attach", "linear_head", "strip"]

"""Shortcut branches: attached for training, stripped for inference."""

from shortback.shortcuts.attach import attach
from shortback.shortcuts.heads import linear_head
from shortback.shortcuts.network import ShortcutNetwork
from shortback.shortcuts.strip import strip

__all__ = ["ShortcutNetwork", "attach", "linear_head", "strip"]

"""Which layers with weights a forward pass calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from shortback.inspection.hooks import hooked
from shortback.inspection.layout import num_features


class LayerCalls:
    """A record of the calls of layers with weights.

    Attributes:
        counts: number of calls by layer.
    """

    def __init__(self) -> None:
        self.counts: Counter[nn.Module] = Counter()
        self._order: dict[nn.Module, None] = {}

    @property
    def last(self) -> nn.Module | None:
        """The layer called last; None if there was no call."""
        return next(reversed(self._order), None)

    def latest(self) -> list[nn.Module]:
        """All layers that were called, the one called last first."""
        return list(reversed(self._order))

    @classmethod
    @contextmanager
    def of(cls, model: nn.Module) -> Iterator[LayerCalls]:
        """Record the calls inside the block; hooks that a module already has see a call before it is recorded."""
        calls = cls()

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            calls.counts[module] += 1
            calls._order.pop(module, None)
            calls._order[module] = None

        layers = [module for module in model.modules() if num_features(module) is not None]
        with hooked((layer, note) for layer in layers):
            yield calls

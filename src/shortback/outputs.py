"""What a network with branches returns, and what a loss of it is made of."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple, NoReturn
from weakref import ReferenceType, ref

import torch
from torch import Tensor

from shortback.errors import UserError

log = logging.getLogger("shortback")


class NoBranches(dict[str, Tensor]):
    """The branches of a network in `eval()`, which computes none; one for a network, which warns once.

    Attributes:
        was_told: whether it was said that a coefficient has nothing to work on.
    """

    was_told = False


def warn_of_eval(branches: Mapping[str, Tensor], logits: Tensor, coefficient: float | Tensor) -> None:
    """Say once that a network trains in `eval()`: with gradients, and a coefficient above 0 for branches it has not.

    Args:
        branches: of the outputs.
        logits: the main ones.
        coefficient: of the branches.
    """
    if not isinstance(branches, NoBranches) or branches.was_told or torch.compiler.is_compiling():
        return
    if torch.is_grad_enabled() and logits.requires_grad and float(coefficient) > 0:
        branches.was_told = True
        log.warning(
            "the network is in eval(), where no branches are computed and the coefficient %g has no effect: call "
            "net.train() before training, and validate under torch.no_grad()",
            float(coefficient),
        )


# The last main output that came with branches, and what says whether its network's user was told.
_latest: list[tuple[ReferenceType[Tensor], NoBranches]] = []


def remember_logits(logits: Tensor, told: NoBranches) -> None:
    """Remember a main output that comes with branches, for `warn_of_logits_alone`.

    Args:
        logits: the main ones; they are not kept alive.
        told: of the network.
    """
    _latest[:] = [(ref(logits), told)]


def warn_of_logits_alone(logits: object, coefficient: float | Tensor) -> None:
    """Say once for a network that its branches were left behind: a loss got the logits of its last outputs alone.

    Args:
        logits: what the loss got.
        coefficient: of the branches.
    """
    if torch.compiler.is_compiling() or not isinstance(logits, Tensor) or not _latest:
        return
    latest, told = _latest[0]
    if latest() is not logits or told.was_told:
        return
    if torch.is_grad_enabled() and logits.requires_grad and float(coefficient) > 0:
        told.was_told = True
        log.warning(
            "the loss got .logits alone, without branches, and the coefficient %g has no effect: pass net(x) itself",
            float(coefficient),
        )


class Outputs(NamedTuple):
    """What a network with shortcut branches returns.

    Attributes:
        logits: of the main output, `[N, K]` (or `[T, N, K]` where the readout keeps the steps).
        branches: logits of each branch by its place, `[N, K]`; empty in `eval()`.
    """

    logits: Tensor
    branches: dict[str, Tensor]

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        rows = [("main output", self.logits), *self.branches.items()]
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{list(logits.shape)}</td></tr>" for name, logits in rows)
        return f"<table><tr><th>logits</th><th>shape</th></tr>{cells}</table>"

    def __getattr__(self, name: str) -> NoReturn:
        hint = ": take its .logits" if hasattr(Tensor, name) and not name.startswith("_") else ""
        raise AttributeError(f"Outputs, which a network with branches returns in training, has no {name!r}{hint}")

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """What PyTorch calls where these are given to a function of tensors."""
        name = getattr(func, "__name__", "the function")
        raise UserError(
            f"{name} got the Outputs of a network with branches, which are logits and branches: pass its .logits, or "
            "train with shortback.shortcut_loss(outputs, y, coefficient=...).total, which has the branches too"
        )


class LossTerms(NamedTuple):
    """The combined loss and what it is made of, each a scalar.

    Attributes:
        total: what to go backward from.
        main: the loss of the main output alone, which is what inference will have.
        branches: the loss of each branch alone, before weight and coefficient. Where logits are combined, the total is
            not made of these and `main`, and they carry no gradient.
    """

    total: Tensor
    main: Tensor
    branches: dict[str, Tensor]

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        rows = [("total", self.total), ("main output", self.main), *self.branches.items()]
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{value.item():.4g}</td></tr>" for name, value in rows)
        return f"<table><tr><th>loss</th><th></th></tr>{cells}</table>"

    def __getattr__(self, name: str) -> NoReturn:
        hint = ": take .total" if hasattr(Tensor, name) and not name.startswith("_") else ""
        raise AttributeError(f"LossTerms, which are the total loss and what it is made of, have no {name!r}{hint}")

"""The outputs of a network with branches, and the terms of its loss."""

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
    """The empty branches of a network in `eval()`; each network has its own instance, so that it warns once.

    Attributes:
        was_warned: whether the user was warned that the coefficient has no branches to act on.
    """

    was_warned = False


def warn_of_eval(branches: Mapping[str, Tensor], logits: Tensor, coefficient: float | Tensor) -> None:
    """Warn once if a network trains in `eval()`: with gradients and a coefficient above 0, but without branches.

    Args:
        branches: of the network's outputs.
        logits: of the main output.
        coefficient: of the branches.
    """
    if not isinstance(branches, NoBranches) or branches.was_warned or torch.compiler.is_compiling():
        return
    if torch.is_grad_enabled() and logits.requires_grad and float(coefficient) > 0:
        branches.was_warned = True
        log.warning(
            "the network is in eval(), where no branches are computed and the coefficient %g has no effect: call "
            "net.train() before training, and validate under torch.no_grad()",
            float(coefficient),
        )


# The last main logits that came with branches, and the record of whether the user of that network was warned.
_latest: list[tuple[ReferenceType[Tensor], NoBranches]] = []


def remember_logits(logits: Tensor, told: NoBranches) -> None:
    """Remember main logits that come with branches, for `warn_of_logits_alone`.

    Args:
        logits: of the main output; the reference is weak.
        told: the network's record of whether its user was warned.
    """
    _latest[:] = [(ref(logits), told)]


def warn_of_logits_alone(logits: object, coefficient: float | Tensor) -> None:
    """Warn once per network if a loss got the logits of its last outputs without the branches.

    Args:
        logits: the argument of the loss.
        coefficient: of the branches.
    """
    if torch.compiler.is_compiling() or not isinstance(logits, Tensor) or not _latest:
        return
    latest, told = _latest[0]
    if latest() is not logits or told.was_warned:
        return
    if torch.is_grad_enabled() and logits.requires_grad and float(coefficient) > 0:
        told.was_warned = True
        log.warning(
            "the loss got .logits alone, without branches, and the coefficient %g has no effect: pass net(x) itself",
            float(coefficient),
        )


class Outputs(NamedTuple):
    """The outputs of a network with shortcut branches.

    Attributes:
        logits: of the main output, `[N, K]` (or `[T, N, K]` if the readout keeps the steps).
        branches: logits `[N, K]` of each branch, keyed by the branch's place; empty in `eval()`.
    """

    logits: Tensor
    branches: dict[str, Tensor]

    def _repr_html_(self) -> str:
        """Return the table that a notebook displays."""
        rows = [("main output", self.logits), *self.branches.items()]
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{list(logits.shape)}</td></tr>" for name, logits in rows)
        return f"<table><tr><th>logits</th><th>shape</th></tr>{cells}</table>"

    def __getattr__(self, name: str) -> NoReturn:
        hint = ": take its .logits" if hasattr(Tensor, name) and not name.startswith("_") else ""
        raise AttributeError(f"Outputs, returned by a network with branches, has no {name!r}{hint}")

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> NoReturn:
        """Refuse to be passed to a PyTorch function, which calls this method.

        Raises:
            ValueError: always; the message says what to pass instead.
        """
        name = getattr(func, "__name__", "the function")
        raise UserError(
            f"{name} got the Outputs of a network with branches, not a tensor: pass its .logits, or "
            "train with shortback.shortcut_loss(outputs, y, coefficient=...).total, which uses the branches too"
        )


class LossTerms(NamedTuple):
    """The combined loss and its terms, each a scalar.

    Attributes:
        total: the loss to call `backward()` on.
        main: the loss of the main output alone, as in inference.
        branches: the loss of each branch alone, before weight and coefficient. Where logits are combined, the total is
            not computed from these and `main`, and they carry no gradient.
    """

    total: Tensor
    main: Tensor
    branches: dict[str, Tensor]

    def _repr_html_(self) -> str:
        """Return the table that a notebook displays."""
        rows = [("total", self.total), ("main output", self.main), *self.branches.items()]
        cells = "".join(f"<tr><td>{escape(name)}</td><td>{value.item():.4g}</td></tr>" for name, value in rows)
        return f"<table><tr><th>loss</th><th></th></tr>{cells}</table>"

    def __getattr__(self, name: str) -> NoReturn:
        hint = ": take .total" if hasattr(Tensor, name) and not name.startswith("_") else ""
        raise AttributeError(f"LossTerms, the total loss and its terms, has no {name!r}{hint}")

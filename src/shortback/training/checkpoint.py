"""Checkpoints that survive: written aside and renamed, the one before kept, read without running any code."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from shortback.errors import UserError
from shortback.files import is_temporary, replacing

log = logging.getLogger("shortback")


class CheckpointError(UserError):
    """A checkpoint that cannot be written or used; the message says what to do."""


class CheckpointFolder:
    """`last.pt` and the one before it, `previous.pt`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"

    def save(self, content: dict[str, Any]) -> None:
        """Write a checkpoint of tensors, numbers, strings, lists and dicts, and delete what one that was killed left.

        Raises:
            CheckpointError: the disk is full or refuses; what was there before is untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in filter(is_temporary, self.folder.glob(".*")):
            path.unlink(missing_ok=True)
        with writing(self.last, keep_as=self.previous) as path:
            torch.save(content, path)

    def load(self) -> dict[str, Any] | None:
        """The newest checkpoint that is whole, or None if there is none; a damaged one is named in the log.

        Raises:
            CheckpointError: every checkpoint is damaged, or one holds pickled code.
        """
        damaged = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                content = read_checkpoint(path)
            except _DamagedError as error:
                damaged.append(f"{path}: {error}")
                log.warning("checkpoint %s is damaged (%s); using the one before it", path, error)
                continue
            return content
        if damaged:
            raise CheckpointError("no checkpoint is whole; start again in another folder\n" + "\n".join(damaged))
        return None


class _DamagedError(Exception):
    pass


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint whose every record has the checksum it was written with.

    Raises:
        CheckpointError: it holds pickled code, which is never run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            raise _DamagedError(f"its record {bad} has changed")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):  # which is said of code; all else is damage
            raise _DamagedError(_first_line(error)) from None
        raise CheckpointError(
            f"{path} holds pickled code, which is not run; it was not written by shortback. "
            "Delete it, or start again in another folder"
        ) from None
    except Exception as error:  # zipfile, torch and pickle raise nearly anything on bytes that have changed
        raise _DamagedError(_first_line(error)) from None


def save_weights(path: Path, weights: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors as a safetensors file; of those that share memory, as tied weights do, each gets its own there.

    Raises:
        CheckpointError: the file could not be written.
    """
    own, seen = {}, set()
    for name, value in weights.items():
        value = value.contiguous()
        storage = value.untyped_storage().data_ptr()
        own[name] = value.clone() if storage in seen else value
        seen.add(storage)
    with writing(path) as temporary:
        save_file(own, temporary, metadata=metadata)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


@contextmanager
def writing(path: Path, *, keep_as: Path | None = None) -> Iterator[Path]:
    """`shortback.files.replacing`, for what a training needs to go on.

    Raises:
        CheckpointError: the file could not be written; `path` is as it was.
    """
    try:
        with replacing(path, keep_as=keep_as) as temporary:
            yield temporary
    # PyTorch's zip writer reports a full disk as RuntimeError, safetensors as an exception of its own.
    except Exception as error:
        raise CheckpointError(
            f"could not write {path}: {_first_line(error)}. What was saved before is untouched; free some space and "
            "resume"
        ) from error

"""Crash-safe checkpoints: written aside and renamed, the previous one kept, read without running pickled code."""

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
    """A checkpoint cannot be written or used; the message says what to do."""


class CheckpointFolder:
    """A folder with the newest checkpoint, `last.pt`, and the one before it, `previous.pt`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "last.pt"
        self.previous = folder / "previous.pt"

    def save(self, content: dict[str, Any]) -> None:
        """Write a checkpoint of tensors, numbers, strings, lists and dicts.

        Temporary files left by a killed process are deleted.

        Raises:
            CheckpointError: the disk is full or not writable; earlier checkpoints are untouched.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in filter(is_temporary, self.folder.glob(".*")):
            path.unlink(missing_ok=True)
        with writing(self.last, keep_as=self.previous) as path:
            torch.save(content, path)

    def load(self) -> dict[str, Any] | None:
        """Read the newest intact checkpoint, None if there are no checkpoints; damaged ones are logged.

        Raises:
            CheckpointError: every checkpoint is damaged, or one holds pickled code.
        """
        damaged = []
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                return read_checkpoint(path)
            except _DamagedError as error:
                damaged.append(f"{path}: {error}")
                instead = "; using the one before it" if path == self.last and self.previous.exists() else ""
                log.warning("checkpoint %s is damaged (%s)%s", path, error, instead)
        if damaged:
            raise CheckpointError("every checkpoint is damaged; start again in another folder\n" + "\n".join(damaged))
        return None


class _DamagedError(Exception):
    pass


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint after verifying the checksum of each of its records.

    Raises:
        CheckpointError: the file holds pickled code, which is never run.
        _DamagedError: the file cannot be read, or a checksum differs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        if bad is not None:
            raise _DamagedError(f"its record {bad} has changed")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):  # PyTorch's words for pickled code; all else is damage
            raise _DamagedError(_first_line(error)) from None
        raise CheckpointError(
            f"{path} holds pickled code, which is not run; it was not written by shortback. "
            "Delete it, or start again in another folder"
        ) from None
    except Exception as error:  # zipfile, torch and pickle raise nearly anything on corrupted bytes
        raise _DamagedError(_first_line(error)) from None


def save_weights(path: Path, weights: Mapping[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file; tensors that share memory, such as tied weights, are written separately.

    Raises:
        CheckpointError: the file could not be written.
    """
    own, seen = {}, set()
    for name, value in weights.items():
        if not isinstance(value, Tensor):  # what a module's `get_extra_state` returned
            continue
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
    """Replace a file atomically, as `shortback.files.replacing` does, with errors that say how to resume.

    Raises:
        CheckpointError: the file could not be written; `path` is unchanged.
    """
    try:
        with replacing(path, keep_as=keep_as) as temporary:
            yield temporary
    # PyTorch's zip writer reports a full disk as a RuntimeError, safetensors as its own exception.
    except Exception as error:
        raise CheckpointError(
            f"could not write {path}: {_first_line(error)}. What was saved before is untouched; free some space and "
            "resume"
        ) from error

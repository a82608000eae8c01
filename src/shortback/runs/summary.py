"""What `summary.json` says of a finished run."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Environment(TypedDict):
    """What a run was made with.

    Attributes:
        processor: its name and the number of its cores.
        versions: of Shortback, PyTorch and Python.
        git_commit: of the folder the run was started in; None outside a repository.
    """

    processor: str
    versions: dict[str, str]
    git_commit: str | None


class Summary(Environment):
    """How a run ended.

    Attributes:
        test_accuracy: in [0, 1], of the network without its branches, on `test_images` images.
        method, seed: of the recipe.
        epochs, steps: done.
        train_seconds: of steps, validation and checkpoints; without loading the data first.
        images_per_second: of the steps.
        best_val_accuracy: in [0, 1], of the weights that were kept; None without a validation split.
        peak_memory_mb: the most memory in use, in MiB.
        num_parameters: of the network without its branches.
        classes: names of the outputs, in their order; missing from runs made before it was stored.
        num_classes: their number, where they have no names, as in `compare`.
        stripped_is_bit_equal: whether it gives, bit for bit, the logits of a network that never had branches.
        split: how training and test data are told apart, with a hash, where there is no official way; else None.
        execution: device, precision, memory format and compilation, in words.
    """

    test_accuracy: float
    test_images: int
    method: str
    seed: int
    epochs: int
    steps: int
    train_seconds: float
    images_per_second: float
    best_val_accuracy: float | None
    peak_memory_mb: float
    num_parameters: int
    classes: NotRequired[list[str]]
    num_classes: NotRequired[int]
    stripped_is_bit_equal: bool
    split: str | None
    execution: str

"""The content of `summary.json`, which a finished run leaves in its folder."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Environment(TypedDict):
    """The environment in which a run was made.

    Attributes:
        processor: name of the CPU and number of usable cores.
        versions: versions of Shortback, PyTorch and Python.
        git_commit: commit of the folder the run was started in; None outside a repository.
    """

    processor: str
    versions: dict[str, str]
    git_commit: str | None


class Summary(Environment):
    """The results of a run.

    Attributes:
        test_accuracy: in [0, 1], of the network without its branches, on `test_images` images.
        test_images: number of test images.
        train_images: number of images trained on, without those set aside; missing from runs made before it was stored.
        method, seed: from the recipe.
        epochs, steps: number of epochs and optimizer steps trained.
        train_seconds: time for steps, validation and checkpoints, without loading the data first.
        images_per_second: throughput of the training steps.
        best_val_accuracy: in [0, 1], of the weights that were kept; None without a validation split.
        peak_memory_mb: peak memory in use, in MiB.
        num_parameters: of the network without its branches.
        classes: names of the outputs, in order; missing from runs made before it was stored.
        num_classes: number of classes, where they have no names, as in `compare`.
        stripped_is_bit_equal: whether the stripped network gives, bit for bit, the logits of a network with the same
            weights that never had branches.
        split: how training and test data are separated, with a hash, if the dataset has no official split; else None.
        execution: device, precision, memory format and compilation, in words.
    """

    test_accuracy: float
    test_images: int
    train_images: NotRequired[int]
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

"""How many times faster does the loader deliver images than ResNet-20 trains on them?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, islice
from typing import Any

import torch

from harness import DisagreementError, Settings, Side, compare, run
from shortback.data import Augmentation, BatchLoader, load_data, train_transform
from workloads import Variant, Workload, training_side

WORK = Workload(model="resnet20", batch_size=128)
BATCHES = 20  # loaded per round
AUGMENTATIONS = {
    "crop, flip": Augmentation(crop_padding=4, flip=True),
    "crop, flip, AutoAugment, Cutout": Augmentation(crop_padding=4, flip=True, auto_augment="cifar10", cutout=16),
}


def measure(settings: Settings) -> dict[str, Any]:
    """Compare a training step with branches after every block with loading CIFAR-10 from `data`, by augmentation."""
    if settings.data is None:
        raise ValueError("loading is measured on images: --data path/to/cifar10")
    data = load_data("image_folder", root=settings.data)
    loaders = {
        name: BatchLoader(
            data.train,
            transform=train_transform(augmentation, image_size=data.image_size),
            batch_size=WORK.batch_size,
            mean=data.mean,
            std=data.std,
            seed=0,
            shuffle=True,
            drop_last=True,
        )
        for name, augmentation in AUGMENTATIONS.items()
    }
    variant = Variant(device=settings.device, branches="blocks")
    figures = compare(
        [
            training_side("training", WORK, variant),
            *(Side(name, lambda loader=loader: _load(loader)) for name, loader in loaders.items()),
        ],
        gate=lambda: _same_twice(loaders),
        title=str(WORK),
        **settings.timing(),
    )
    batches = {"training": 1, **dict.fromkeys(loaders, BATCHES)}
    rates = {name: number * WORK.batch_size / figures["sides"][name]["median"] for name, number in batches.items()}
    over = {name: rates[name] / rates["training"] for name in loaders}
    print("\n".join(f"  {name} over training  {ratio:.1f}" for name, ratio in over.items()), flush=True)
    return {
        "execution": variant.execution().describe(),
        "images_per_second": rates,
        "loader_over_training": over,
        "time": figures,
    }


def _load(loader: BatchLoader) -> Callable[[], None]:
    """Each call loads some batches of a new epoch."""
    epochs = count()

    def step() -> None:
        for _ in islice(loader.epoch(next(epochs)), BATCHES):
            pass

    return step


def _same_twice(loaders: dict[str, BatchLoader]) -> dict[str, float]:
    for name, loader in loaders.items():
        (a, _), (b, _) = next(iter(loader.epoch(0))), next(iter(loader.epoch(0)))
        if not torch.equal(a, b):
            raise DisagreementError(f"{name}: a batch asked for twice is not the same")
    return dict.fromkeys(loaders, 0.0)


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("device", "data"))


if __name__ == "__main__":
    main()

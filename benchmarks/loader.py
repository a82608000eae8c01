"""Is the loader the bottleneck? Its images a second over those of training ResNet-20 at T=4, in interleaved rounds.

    python benchmarks/loader.py --root path/to/cifar10 --out benchmarks/results/loader.json

The gate before the timing: a batch must be the same when it is asked for twice.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

import shortback as sb
from shortback.data import Augmentation, BatchLoader, load_data, train_transform
from shortback.training import build_optimizer, choose_execution

BATCH_SIZE = 128
AUGMENTATIONS = {
    "crop, flip": Augmentation(crop_padding=4, flip=True),
    "crop, flip, AutoAugment, Cutout": Augmentation(crop_padding=4, flip=True, auto_augment="cifar10", cutout=16),
}


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--root", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()

    data = load_data("image_folder", root=options.root)
    loaders = {
        name: BatchLoader(
            data.train,
            transform=train_transform(augmentation, image_size=32),
            batch_size=BATCH_SIZE,
            mean=data.mean,
            std=data.std,
            seed=0,
            shuffle=True,
            drop_last=True,
        )
        for name, augmentation in AUGMENTATIONS.items()
    }
    for loader in loaders.values():
        (a, _), (b, _) = next(iter(loader.epoch(0))), next(iter(loader.epoch(0)))
        assert torch.equal(a, b), "a batch asked for twice must be the same"

    execution = choose_execution()
    net = sb.create_model("resnet20", num_steps=4)
    net = execution.prepare(sb.attach(net, at="blocks", sample=torch.zeros(2, 3, 32, 32)).train())
    optimizer = build_optimizer(net, lr=0.01)
    x, y = next(iter(loaders["crop, flip"].epoch(0)))

    def train() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=execution.precision == "bf16"):
            outputs = net(x)
        sb.shortcut_loss(outputs, y, coefficient=0.5).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    def load(loader: BatchLoader, epoch: int, batches: int = 20) -> None:
        for _, _ in zip(range(batches), loader.epoch(epoch), strict=False):
            pass

    train()
    rates: dict[str, list[float]] = {name: [] for name in ("training", *loaders)}
    for i in range(options.rounds):
        rates["training"].append(BATCH_SIZE / _seconds(train))
        for name, loader in loaders.items():
            rates[name].append(20 * BATCH_SIZE / _seconds(lambda loader=loader, i=i: load(loader, i)))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "images_per_second": {name: {"median": medians[name], "rounds": values} for name, values in rates.items()},
        "loader_over_training": {name: medians[name] / medians["training"] for name in loaders},
        "execution": execution.describe(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({"medians": medians, "over training": result["loader_over_training"]}, indent=2))


def _seconds(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()

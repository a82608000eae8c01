"""Train networks that are dead at the start, with what may wake them up: the table of docs/results.md.

    python scripts/dead_networks.py

Plain convolutions without norms, on the bundled images. Writes benchmarks/results/dead_networks.json after every
training; trainings that are in it are not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import shortback as sb
from shortback.runs.environment import environment

OUT = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "dead_networks.json"
NUM_STEPS, WIDTH, BATCH, LEARNING_RATE = 4, 32, 64, 1e-3
NUM_SAMPLES = 64  # to scale and to diagnose on
METHODS = ("as it is", "kaiming", "scaled", "branches", "scaled, branches", "batch norm")


def network(depth: int, *, norm: bool) -> sb.SpikingNetwork:
    """Convolutions of 3 x 3 and LIF neurons, halved twice, and a linear readout of the average."""
    layers: list[nn.Module] = []
    channels = 1
    for index in range(depth):
        stride = 2 if index in (1, depth // 2) else 1
        layers.append(nn.Conv2d(channels, WIDTH, 3, padding=1, stride=stride))
        layers += [nn.BatchNorm2d(WIDTH)] if norm else []
        layers.append(sb.LIF(NUM_STEPS))
        channels = WIDTH
    readout = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 10)
    return sb.SpikingNetwork(nn.Sequential(*layers, *readout), num_steps=NUM_STEPS)


def train(depth: int, method: str, *, seed: int, epochs: int) -> dict[str, Any]:
    train_x, train_y, test_x, test_y = images()
    torch.manual_seed(seed)
    model = network(depth, norm=method == "batch norm")
    if method == "kaiming":
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
    x, y = train_x[:NUM_SAMPLES], train_y[:NUM_SAMPLES]
    if "scaled" in method:
        sb.scale_to_rate(model, x)
    net = sb.attach(model, at="blocks", sample=x) if "branches" in method else model
    before = sb.diagnose(net, x, y, suggest=False).judgement
    optimizer = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    steps = epochs * (len(train_x) // BATCH)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    coefficient = sb.schedules.Linear(start=1.0, end=0.0)
    start = time.perf_counter()
    for step, (x, y) in enumerate(batches(train_x, train_y, epochs=epochs)):
        loss = sb.shortcut_loss(net.train()(x), y, coefficient=coefficient(step / steps), combine="additive").total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        pairs = zip(test_x.split(250), test_y.split(250), strict=True)
        correct = [(model(x).argmax(1) == y).sum().item() for x, y in pairs]
    verdict = {"verdict": before.verdict, "effective_depth": before.effective_depth, "num_layers": before.num_layers}
    return {
        "depth": depth,
        "method": method,
        "seed": seed,
        "before": verdict,
        "test_accuracy": sum(correct) / len(test_y),
        "train_seconds": seconds,
    }


def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The bundled images, normalised, and their classes: of the training split and of the test split."""
    data = sb.data.load_data("bundled")
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    found: list[Tensor] = []
    for split in (data.train, data.test):
        pixels = torch.stack([split.image(index) for index in range(len(split))])
        found += [(pixels / 255 - mean) / std, split.labels]
    return found[0], found[1], found[2], found[3]


def batches(x: Tensor, y: Tensor, *, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    for _ in range(epochs):
        for chosen in torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH):
            yield x[chosen], y[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", nargs="+", type=int, default=[8, 16])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "num_steps": NUM_STEPS, "width": WIDTH, "lr": LEARNING_RATE, "batch": BATCH}
    runs: list[dict[str, Any]] = []
    if arguments.out.exists():
        before = json.loads(arguments.out.read_text())
        runs = before["runs"] if before["settings"] == settings else []
    done = {(run["depth"], run["method"], run["seed"]) for run in runs}
    for depth in arguments.depths:
        for seed in range(arguments.seeds):
            for method in METHODS:
                if (depth, method, seed) in done:
                    continue
                runs.append(train(depth, method, seed=seed, epochs=arguments.epochs))
                print(json.dumps(runs[-1]), flush=True)
                content = {"settings": settings, "environment": environment(), "runs": runs}
                arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

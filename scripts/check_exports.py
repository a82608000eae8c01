"""Train every model of the registry a little, export it to NIR, and print how many spikes differ.

    python scripts/check_exports.py --root path/to/cifar10 [--images 1000] [--out exports.json]

Images are real and weights are trained, because a network that does not fire agrees with anything. It takes a quarter
of an hour on two cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import shortback as sb
from shortback.data.images import ImageData, ImageSet
from shortback.data.registry import load_data
from shortback.export.check import record
from shortback.models import list_models
from shortback.training import choose_execution, fit

NUM_STEPS = 4
RESIDUAL = ("spiking", "sew", "membrane", "plain")


def cases() -> list[tuple[str, dict[str, str]]]:
    """List the names and settings of all networks."""
    found: list[tuple[str, dict[str, str]]] = []
    for name in list_models():
        kinds = RESIDUAL if name == "resnet20" else ("spiking",)
        found += [(name, {"residual": kind} if "resnet" in name else {}) for kind in kinds]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--images", type=int, default=1000, help="to train on")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = load_data("image_folder", root=options.root)
    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[: options.images]
    train = DataLoader(TensorDataset(*tensors(data, data.train, chosen)), batch_size=50, shuffle=True)
    x, _ = tensors(data, data.test, torch.arange(0, len(data.test), len(data.test) // 64)[:64])
    rows = {}
    for name, settings in cases():
        started = time.monotonic()
        row = checked(name, settings, train, x)
        rows[" ".join([name, *settings.values()])] = row
        print(
            f"{name:18} {' '.join(settings.values()):9} {row['text']}  ({time.monotonic() - started:.0f} s)", flush=True
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1) + "\n")


def checked(name: str, settings: dict[str, str], train: DataLoader, x: torch.Tensor) -> dict:
    """Train and export one network, and return its row of results."""
    torch.manual_seed(0)
    neuron = functools.partial(sb.LIF, decay=0.5)
    model = sb.create_model(name, num_steps=NUM_STEPS, width=0.25, neuron=neuron, **settings)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            train,
            epochs=2,
            folder=folder,
            execution=choose_execution(compile="off", precision="fp32"),
            loggers=[],
        )
        try:
            check = sb.export.write(model.eval(), x, Path(folder) / "net.nir", to="nir")
        except ValueError as error:
            return {"text": f"REFUSED: {error}"}
    spikes = record(model, x).spikes.values()
    rate = sum(float(s.sum()) for s in spikes) / sum(s.numel() for s in spikes)
    return {**check.to_dict(), "firing_rate": rate, "text": f"rate {rate:.3f}; {check}"}


def tensors(data: ImageData, images: ImageSet, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return normalised images and their classes."""
    pixels = torch.stack([images.image(int(index)) for index in indices]).float() / 255
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    return (pixels - mean) / std, images.labels[indices]


if __name__ == "__main__":
    main()

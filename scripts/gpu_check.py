"""Check results on a GPU, then measure speed; `scripts/gpu_check.sh` runs this. The first CUDA device is used.

    python scripts/gpu_check.py --out gpu.json --root path/to/images    # the folder has train/ and test/

Neurons and networks are compared with the reference on the CPU, in float64, so that no rounding flips a spike. Then the
step of each network in table 1 of the paper is timed: not compiled, with compiled neurons, and compiled as a whole.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import shortback as sb
from shortback.data import Augmentation, BatchLoader, train_transform
from shortback.data.images import ArrayImages
from shortback.data.resident import ResidentLoader
from shortback.recipes.load import load_recipe
from shortback.runs.rehearsal import Rehearsal
from shortback.surrogates import Arctan, Rectangular, Sigmoid, Triangular
from shortback.training import choose_execution

TOLERANCE = 1e-9
NETWORKS = ("resnet18", "resnet34")
STEPS = (2, 4)
WARM_UP, ROUNDS = 5, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="file for the numbers, JSON")
    parser.add_argument("--root", type=Path, help="folder of images to time with; without it, only results are checked")
    parser.add_argument("--quick", action="store_true", help="time one network, and do not compile it as a whole")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU")
    result: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "largest_difference": {},
        "trainings": {},
        "steps": [],
    }
    failed = False
    for name, check in checks():
        difference = check()
        result["largest_difference"][name] = difference
        wrong = not difference <= TOLERANCE
        failed |= wrong
        print(f"{'WRONG' if wrong else 'right'}  {difference:.1e}  {name}", flush=True)
    for precision, compile in itertools.product(("fp32", "bf16", "fp16"), ("off", "neuron")):
        first, last = train(precision, compile)
        result["trainings"][f"{precision} {compile}"] = [first, last]
        failed |= not math.isfinite(last)
        print(f"{precision}, compile={compile}: loss {first:.3f} to {last:.3f}", flush=True)
    if options.root is not None:
        for timed in times(options.root, quick=options.quick):
            result["steps"].append(timed)
            print(timed, flush=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    if failed:
        raise SystemExit("something is wrong on this GPU: see above")


def checks() -> Iterator[tuple[str, Callable[[], float]]]:
    """Yield the comparisons with the reference on the CPU: their names, and functions that return the difference."""
    kinds = [(surrogate, "hard", False) for surrogate in (Triangular(), Rectangular(), Sigmoid(), Arctan())]
    for surrogate, reset, detach in (*kinds, (Triangular(), "soft", False), (Triangular(), "hard", True)):
        yield (
            f"LIF, {surrogate}, {reset} reset, detach_reset={detach}",
            lambda s=surrogate, r=reset, d=detach: neuron_difference(s, r, d),
        )
    for model, settings in (
        ("resnet20", {}),
        ("resnet20", {"residual": "plain"}),
        ("resnet18", {"width": 0.125}),
        ("vgg11", {"width": 0.125}),
    ):
        for channels_last in (False, True):
            name = f"{model} {settings} {'channels-last' if channels_last else 'contiguous'}"
            yield name, lambda m=model, s=settings, c=channels_last: network_difference(m, s, channels_last=c)
    yield "crop, flip, Cutout and normalisation on the GPU", augmentation_difference


def augmentation_difference() -> float:
    """Largest difference between the batches made on the GPU and those of the CPU's loader."""
    pixels = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)
    images = ArrayImages(pixels, torch.arange(300) % 10)
    augmentation = Augmentation(crop_padding=4, flip=True, cutout=8)
    settings: dict[str, Any] = {"batch_size": 128, "seed": 0, "shuffle": True, "drop_last": False}
    settings |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    settings["transform"] = train_transform(augmentation, image_size=32)
    ours = ResidentLoader(images, device=torch.device("cuda"), **settings).epoch(0)
    theirs = BatchLoader(images, **settings).epoch(0)
    return max(float((a.cpu() - b).abs().max()) for (a, _), (b, _) in zip(ours, theirs, strict=True))


def neuron_difference(surrogate: Any, reset: Any, detach: bool) -> float:
    """Largest difference in spikes and input gradients: compiled on the GPU against the reference on the CPU."""
    torch.manual_seed(0)
    x, weights = torch.randn(4, 3, 5, 7, 7, dtype=torch.float64), torch.randn(4, 3, 5, 7, 7, dtype=torch.float64)

    def run(backend: Any, device: str) -> tuple[Tensor, Tensor]:
        neuron = sb.LIF(4, decay=0.5, reset=reset, detach_reset=detach, surrogate=surrogate, backend=backend)
        leaf = x.to(device).requires_grad_()
        spikes = neuron(leaf.flatten(0, 1))
        (spikes * weights.to(device).flatten(0, 1)).sum().backward()
        assert leaf.grad is not None
        return spikes.detach().cpu(), leaf.grad.cpu()

    return _largest(run("compiled", "cuda"), run("reference", "cpu"))


def network_difference(model: str, settings: dict[str, Any], *, channels_last: bool) -> float:
    """Largest difference in the logits, with those of branches, and in gradients, relative to each tensor's largest."""
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.arange(4)

    def run(device: Any, compile: Any) -> list[Tensor]:
        torch.manual_seed(1)
        sample = torch.zeros(2, 3, 32, 32)
        net = sb.attach(sb.create_model(model, num_classes=10, num_steps=2, **settings), at="stages", sample=sample)
        net = net.double().to(device)
        execution = choose_execution(device=device, precision="fp32", compile=compile, channels_last=channels_last)
        outputs = execution.prepare(net.train())(x.to(device))
        sb.shortcut_loss(outputs, y.to(device), coefficient=0.5).total.backward()
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        return [t.detach().cpu() for t in (outputs.logits, *outputs.branches.values(), *gradients)]

    return _largest(run("cuda", "neuron"), run("cpu", "off"))


def _largest(ours: Any, theirs: Any) -> float:
    pairs = list(zip(ours, theirs, strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs)


def train(precision: Any, compile: Any) -> tuple[float, float]:
    """Train 20 steps on 64 images with `sb.training.fit` and its checkpoints; return the first and the last loss."""
    torch.manual_seed(0)
    labels = torch.arange(64) % 4
    images = torch.randn(4, 3, 16, 16)[labels] + torch.randn(64, 3, 16, 16) / 4
    data = torch.utils.data.TensorDataset(images, labels)
    net = sb.create_model("resnet20", num_classes=4, num_steps=2)
    net = sb.attach(net, at="stages", sample=images[:2])
    with tempfile.TemporaryDirectory() as folder:
        sb.training.fit(
            net,
            torch.utils.data.DataLoader(data, batch_size=32),
            epochs=10,
            lr=0.05,
            folder=Path(folder),
            execution=choose_execution(device="cuda", precision=precision, compile=compile),
            log_every=1,
            loggers=[losses := _Losses()],
        )
    return losses.values[0], losses.values[-1]


class _Losses:
    def __init__(self) -> None:
        self.values: list[float] = []

    def start(self, **_: Any) -> None: ...

    def log(self, row: Any) -> None:
        if row["kind"] == "step":
            self.values.append(row["loss"])

    def advance(self, step: int) -> None: ...

    def close(self) -> None: ...


def times(root: Path, *, quick: bool) -> Iterator[dict[str, Any]]:
    """Measure an optimizer step, median milliseconds and peak memory, of table 1's networks and of narrow ones."""
    for network, steps, width in itertools.product(NETWORKS[:1] if quick else NETWORKS, STEPS, (1.0, 0.25)):
        for method, compile in itertools.product(
            ("vanilla", "evolutionary"), ("off", "neuron") if quick else ("off", "neuron", "model")
        ):
            if compile == "model" and (method == "vanilla" or width < 1 or steps == 2):
                continue
            settings = [
                "data.kind=image_folder",
                f"data.root={root}",
                f"model.num_steps={steps}",
                f"model.width={width}",
                f"method={method}",
                f"train.compile={compile}",
                "train.precision=bf16" if width == 1 else "train.precision=fp32",
            ]
            recipe = load_recipe(f"cifar10-{network}", settings=settings)
            row = {"network": network, "T": steps, "width": width, "method": method, "compile": compile}
            try:
                yield row | {"batch": recipe.train.batch_size} | _time(Rehearsal(recipe))
            except RuntimeError as error:
                yield row | {"error": str(error).splitlines()[0]}


def _time(rehearsal: Rehearsal) -> dict[str, Any]:
    torch.cuda.reset_peak_memory_stats()
    begun = time.perf_counter()
    rehearsal.build()
    for _ in range(WARM_UP):
        rehearsal.step()
    torch.cuda.synchronize()
    before = time.perf_counter() - begun
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        rehearsal.step()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begun)
    median = statistics.median(taken)
    return {
        "precision": rehearsal.execution.precision,
        "ms": round(1000 * median, 2),
        "ms_least_most": [round(1000 * min(taken), 2), round(1000 * max(taken), 2)],
        "images_a_second": round(len(rehearsal.y) / median),
        "seconds_to_warm": round(before, 1),
        "peak_mb": round(torch.cuda.max_memory_allocated() / 2**20),
    }


if __name__ == "__main__":
    main()

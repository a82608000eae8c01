"""Estimate the step time of ResNet-34 at 224 x 224 on 8 to 64 GPUs from bytes and operations; nothing is measured.

    python scripts/step_time_on_paper.py [--batch 2048] [--steps 4]

A convolution takes the time of its operations or that of its bytes, whichever is longer; norm and neuron of every layer
add the time of theirs. Both passes together take at least as long as launching their kernels. Summing the gradients
over the GPUs adds the time that the backward pass does not hide. The constants are values from data sheets times a
share that is an assumption, named below.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from torch import nn

from shortback.models import create_model

FLOPS = 989e12 * 0.25  # bf16: an H100's data sheet, times the share assumed for convolutions of this size
BANDWIDTH = 3.35e12 * 0.80  # bytes per second of its memory, times the assumed share
WITHIN = 450e9 * 0.70  # bytes per second from a GPU to the others in its machine (NVLink, one direction)
BETWEEN = 50e9 * 0.70  # bytes per second to other machines (400 Gbit/s per GPU)
PER_MACHINE = 8
LAUNCH = 5e-6  # seconds of Python and driver per kernel, without CUDA graphs
KERNELS = 14  # per layer, forward and backward
HIDDEN = 0.5  # share of the backward pass during which gradients are already being sent
GPUS = (8, 16, 32, 64)

# Bytes that a layer moves per element of its output [T, N, C, H, W], in bf16, apart from its convolution. Forward: the
# norm reads z (2); the neuron reads z and writes spikes and their bits (2 + 2 + 1/8). Backward: the neuron reads z and
# the gradient of the spikes and writes that of z (6); the norm reads both and writes (6).
FORWARD_BYTES, BACKWARD_BYTES = 2 + 4.125, 6 + 6


@dataclass(frozen=True)
class Convolution:
    """Multiplications, input and output elements of a convolution for one image and one time step; weight elements."""

    macs: int
    inputs: int
    outputs: int
    weights: int
    is_static: bool


def convolutions() -> list[Convolution]:
    """The convolutions of ResNet-34 with the ImageNet stem; the first sees a static image, once for all time steps."""
    net = create_model("resnet34", num_classes=1000, num_steps=1, stem="imagenet").eval()
    found: list[Convolution] = []

    def note(module: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        macs = output.numel() * module.weight[0].numel()
        sizes = inputs[0].numel(), output.numel(), module.weight.numel()
        found.append(Convolution(macs, *sizes, is_static=not found))

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(1, 3, 224, 224))
    return found


def seconds_of_one_gpu(layers: list[Convolution], *, images: int, num_steps: int) -> tuple[float, float]:
    """Seconds of the forward pass and of the backward pass over the images of one GPU."""
    forward = backward = 0.0
    for layer in layers:
        runs = images * (1 if layer.is_static else num_steps)
        moved = 2 * (runs * (layer.inputs + layer.outputs) + layer.weights)
        once = max(2 * layer.macs * runs / FLOPS, moved / BANDWIDTH)
        elements = images * num_steps * layer.outputs
        forward += once + FORWARD_BYTES * elements / BANDWIDTH
        backward += (1 if layer.is_static else 2) * once + BACKWARD_BYTES * elements / BANDWIDTH
    return forward, backward


def seconds_of_gradients(weights: int, gpus: int) -> float:
    """Seconds to sum float32 gradients over all GPUs: within machines, then between them, each sending a share."""
    within = min(gpus, PER_MACHINE)
    machines = gpus // within
    bytes_ = 4 * weights
    seconds = 2 * (within - 1) / within * bytes_ / WITHIN
    return seconds + 2 * (machines - 1) / machines * bytes_ / within / BETWEEN


def rows(batch: int, num_steps: int) -> list[tuple[int, int, float, float]]:
    """For each number of GPUs: that number, images per GPU, seconds per step, and images per second of all GPUs."""
    layers = convolutions()
    weights = sum(layer.weights for layer in layers) + 512 * 1000
    result = []
    for gpus in GPUS:
        forward, backward = seconds_of_one_gpu(layers, images=batch // gpus, num_steps=num_steps)
        waits = max(0.0, seconds_of_gradients(weights, gpus) - HIDDEN * backward)
        step = max(forward + backward, LAUNCH * KERNELS * len(layers)) + waits
        result.append((gpus, batch // gpus, step, batch / step))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2048, help="images of all GPUs together")
    parser.add_argument("--steps", type=int, default=4, help="time steps")
    options = parser.parse_args()
    print("| GPUs | images a GPU | step, ms | images/s | an epoch of ImageNet, min |\n| --- | --- | --- | --- | --- |")
    for gpus, images, step, rate in rows(options.batch, options.steps):
        print(f"| {gpus} | {images} | {step * 1e3:.0f} | {rate:,.0f} | {1_281_167 / rate / 60:.1f} |")


if __name__ == "__main__":
    main()

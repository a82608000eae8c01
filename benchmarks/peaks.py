"""Peak memory of one training step, measured in a process of its own.

On Linux the kernel keeps the most memory a process ever had resident, and forgets it on request. The child builds the
network, takes two steps with tiny batches, which compile and initialise all there is, and asks the kernel to forget:
the peak is what one step with the whole batch adds. Glibc is told to give freed memory back at once, or what the tiny
steps freed would serve the large one unseen. On a GPU PyTorch's allocator counts.

    python peaks.py '{"work": {...}, "variant": {...}}'
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import Device, Settings
from shortback.training.peak_memory import forget_peak, peak_bytes
from workloads import Variant, Workload, autocast, batch, build, diagnosis, training_step

TINY = (2, 3)  # two sizes, after which a compiler knows that the size varies
CALLS = {"step": training_step, "diagnosis": diagnosis}
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def peak_of(work: Workload, variant: Variant, *, runs: int = 3, call: str = "step") -> dict[str, Any]:
    """Peak and saved bytes of a training step, or the peak of another of `CALLS`, each run in a child process.

    Returns:
        `peak_bytes`: the median; `samples`: of every run; `saved_bytes`: see `saved_bytes`, None where it cannot be
        seen.

    Raises:
        RuntimeError: the child failed; its output is in the message.
        NotImplementedError: neither Linux nor a GPU.
    """
    if variant.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise NotImplementedError("the peak of a process can be measured on Linux only; use --device cuda elsewhere")
    spec = json.dumps({"work": asdict(work), "variant": asdict(variant), "call": call})
    measured = [_run_child(spec) for _ in range(runs)]
    samples = [one["peak_bytes"] for one in measured]
    return {"peak_bytes": statistics.median(samples), "samples": samples, "saved_bytes": measured[0]["saved_bytes"]}


def peaks_of(
    work: Workload, variants: Mapping[str, Variant], settings: Settings, *, over: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """`peak_of` every variant by name, and the ratios of the peaks of pairs of them."""
    peaks = {name: peak_of(work, variant, runs=1 if settings.quick else 3) for name, variant in variants.items()}
    ratios = {f"{a} / {b}": peaks[a]["peak_bytes"] / peaks[b]["peak_bytes"] for a, b in over}
    width = max(map(len, (*peaks, *ratios)), default=0)
    print(f"{work}, peak memory of a training step")
    for name, peak in peaks.items():
        saved = "" if peak["saved_bytes"] is None else f"  ({peak['saved_bytes'] / 2**20:.1f} saved for backward)"
        print(f"  {name:{width}}  {peak['peak_bytes'] / 2**20:9.1f} MiB{saved}")
    print("\n".join(f"  {pair:{width}}  {ratio:9.3f}" for pair, ratio in ratios.items()), flush=True)
    return {"peaks": peaks, "over": ratios}


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes autograd keeps between forward and backward, each storage once, the network's own tensors left out."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = net(x)  # alive until all is counted, and with it what it keeps
    del outputs
    return sum(size for pointer, size in storages.items() if pointer not in own)


def _run_child(spec: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), spec],
        env=os.environ | ALLOCATOR,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the peak failed\n{spec}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(work: Workload, variant: Variant, call: str) -> dict[str, int | None]:
    """What a child does."""
    step = CALLS[call](work, variant)
    for size in TINY:
        step(*batch(work, variant, size=size))
    x, y = batch(work, variant)
    graphs = _num_graphs()
    before = _begin(variant.device)
    step(x, y)
    peak = _highest(variant.device) - before
    if _num_graphs() > graphs:
        raise RuntimeError("the measured step compiled something, so its peak is the compiler's")
    saved = None
    if call == "step" and not variant.recompute:  # what a checkpoint keeps is kept by no node of the graph
        with autocast(variant.execution()):
            saved = saved_bytes(build(work, variant), x)
    return {"peak_bytes": peak, "saved_bytes": saved}


def _num_graphs() -> int:
    """Graphs compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def _begin(device: Device) -> int:
    """Forget the peak so far, and return the bytes in use now."""
    if device == "cuda":
        torch.cuda.synchronize()
    forget_peak(torch.device(device))
    return torch.cuda.memory_allocated() if device == "cuda" else _resident()


def _highest(device: Device) -> int:
    """The most bytes in use since `_begin`."""
    if device == "cuda":
        torch.cuda.synchronize()
    return peak_bytes(torch.device(device))


def _resident() -> int:
    (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    return int(kilobytes) * 1024


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(_measure(Workload(**asked["work"]), Variant(**asked["variant"]), asked["call"])))

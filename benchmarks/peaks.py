"""Measure the peak memory of training steps, each in a child process.

The Linux kernel records the most memory a process ever had resident, and resets that on request. The child builds the
network, takes two steps with tiny batches, which compile and initialise everything, has the C library return what these
freed, and asks the kernel to reset the peak. Then one of two measurements follows, each in a new child:

- The *peak* is the memory that some full-size steps add when freed memory is handled as in real use of that side: our
  networks, when prepared, have glibc keep it (`shortback.allocator`); others leave glibc's defaults. Both leave gaps
  that no later request fits into, so the peak exceeds the memory in use, and varies by a tenth.
- The memory *in use* is what one step adds if freed memory returns to the system at once.

On a GPU, PyTorch's allocator counts, and both measure the memory in use.

    python peaks.py '{"work": {...}, "variant": {...}}'
"""

from __future__ import annotations

import ctypes
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

TINY = (2, 3)  # two sizes, so that the compiler learns that the size varies
CALLS = {"step": training_step, "diagnosis": diagnosis}
STEPS = 3  # the highest counts: gaps appear from the second on
RETURN_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
MALLOPT = (-3, -1, -4)  # mallopt's numbers for these two, and for the number of mapped blocks


def peak_of(work: Workload, variant: Variant, *, runs: int = 3, call: str = "step") -> dict[str, Any]:
    """The memory of training steps, or of another of `CALLS`, with each run in a child process; see above.

    Returns:
        `peak_bytes`: the median; `samples`: the peak of every run; `in_use_bytes`; `saved_bytes`: see the function of
        that name, None where it cannot be measured.

    Raises:
        RuntimeError: a child failed; its output is in the message.
        NotImplementedError: neither Linux nor a GPU.
    """
    if variant.device == "cpu" and not Path("/proc/self/clear_refs").exists():
        raise NotImplementedError("the peak of a process can be measured on Linux only; use --device cuda elsewhere")
    spec = {"work": asdict(work), "variant": asdict(variant), "call": call}
    measured = [_run_child(spec | {"at_once": False}) for _ in range(runs)]
    samples = [one["peak_bytes"] for one in measured]
    return {
        "peak_bytes": statistics.median(samples),
        "samples": samples,
        "in_use_bytes": _run_child(spec | {"at_once": True})["peak_bytes"],
        "saved_bytes": measured[0]["saved_bytes"],
    }


def peaks_of(
    work: Workload, variants: Mapping[str, Variant], settings: Settings, *, over: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """`peak_of` every variant by name, and for pairs of variants the ratios of the peaks and of the memory in use."""
    peaks = {name: peak_of(work, variant, runs=1 if settings.quick else 3) for name, variant in variants.items()}
    ratios = {
        key: {f"{a} / {b}": peaks[a][key] / peaks[b][key] for a, b in over} for key in ("peak_bytes", "in_use_bytes")
    }
    width = max(map(len, (*peaks, *ratios["peak_bytes"])), default=0)
    print(f"{work}, memory of training steps: peak, in use, saved for backward")
    for name, peak in peaks.items():
        numbers = [peak[key] for key in ("peak_bytes", "in_use_bytes", "saved_bytes")]
        print(f"  {name:{width}}", *("" if number is None else f"{number / 2**20:9.1f} MiB" for number in numbers))
    for pair, ratio in ratios["peak_bytes"].items():
        print(f"  {pair:{width}}  {ratio:9.3f}  {ratios['in_use_bytes'][pair]:9.3f}", flush=True)
    return {"peaks": peaks, "over": ratios["peak_bytes"], "over_in_use": ratios["in_use_bytes"]}


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """Bytes that autograd keeps from forward to backward: each storage once, without the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = net(x)  # keeps the saved tensors alive until they are counted
    del outputs
    return sum(size for pointer, size in storages.items() if pointer not in own)


def _run_child(spec: dict[str, Any]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), json.dumps(spec)],
        env=os.environ | (RETURN_AT_ONCE if spec["at_once"] else {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"measuring the peak failed\n{spec}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(work: Workload, variant: Variant, call: str, *, at_once: bool) -> dict[str, int | None]:
    """Measure once, in this process, which is a child."""
    step = CALLS[call](work, variant)
    for size in TINY:
        step(*batch(work, variant, size=size))
    x, y = batch(work, variant)
    graphs = _num_graphs()
    give_back_freed_memory(from_now_on=at_once)
    before = _begin(variant.device)
    for _ in range(1 if at_once else STEPS):
        step(x, y)
    peak = _peak_since(variant.device) - before
    if _num_graphs() > graphs:
        raise RuntimeError("the measured step compiled something, so its peak is the compiler's")
    saved = None
    if call == "step" and not variant.recompute:  # a checkpoint keeps tensors outside the graph's nodes
        with autocast(variant.execution()):
            saved = saved_bytes(build(work, variant), x)
    return {"peak_bytes": peak, "saved_bytes": saved}


def give_back_freed_memory(*, from_now_on: bool) -> None:
    """Have glibc, if it is the C library, return free memory to the system, and with `from_now_on` later frees."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return
    if from_now_on:
        for parameter in MALLOPT:
            libc.mallopt(parameter, 65536)
    libc.malloc_trim(0)


def _num_graphs() -> int:
    """The number of graphs compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def _begin(device: Device) -> int:
    """Forget the peak so far, and return the bytes in use now."""
    if device == "cuda":
        torch.cuda.synchronize()
    forget_peak(torch.device(device))
    return torch.cuda.memory_allocated() if device == "cuda" else _resident()


def _peak_since(device: Device) -> int:
    """The most bytes in use since `_begin`."""
    if device == "cuda":
        torch.cuda.synchronize()
    return peak_bytes(torch.device(device))


def _resident() -> int:
    (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB$", Path("/proc/self/status").read_text(), flags=re.MULTILINE)
    return int(kilobytes) * 1024


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    work, variant = Workload(**asked["work"]), Variant(**asked["variant"])
    print(json.dumps(_measure(work, variant, asked["call"], at_once=asked["at_once"])))

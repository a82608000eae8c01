"""Choose how a network runs on this machine: device, precision, memory format, compilation."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

from shortback.allocator import keep_freed_memory
from shortback.choices import Compile, Device, Memory, Precision, check_choice
from shortback.errors import UserError
from shortback.inspection.pointwise import patch_strided_1x1
from shortback.neurons import SpikingNeuron
from shortback.processes import local_world_size, num_cores, world_size
from shortback.spiking import SpikingNetwork
from shortback.torch_private import compile_whole


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a network runs, with no value left at `auto`; if `memory` is None, the network keeps its own setting."""

    device: Device
    precision: Precision
    channels_last: bool
    compile: Compile
    memory: Memory | None = None

    def describe(self, net: nn.Module | None = None) -> str:
        """Describe the choice in one line; compiled neurons are left out for a network without Shortback's."""
        memory_format = "channels-last" if self.channels_last else "contiguous"
        compiled = {"neuron": ", compiled neurons", "model": ", compiled model", "off": ", nothing compiled"}[
            self.compile
        ]
        name = torch.cuda.get_device_name() if self.device == "cuda" else f"{torch.get_num_threads()} CPU threads"
        memory = f", {self.memory} memory" if self.memory is not None and self.compile == "neuron" else ""
        if (
            net is not None
            and self.compile == "neuron"
            and not any(isinstance(m, SpikingNeuron) for m in net.modules())
        ):
            compiled = memory = ""
        return f"{self.device} ({name}), {self.precision}, {memory_format}{compiled}{memory}"

    def prepare(self, net: nn.Module) -> nn.Module:
        """Apply memory format, memory setting and backend to `net`, in place; returns the module to call in training.

        The returned module is `net` itself, unless the whole model is compiled.
        """
        if self.channels_last and not any(p.ndim == 5 for p in net.parameters()):  # 5-D tensors have no channels_last
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device == "cpu":
            keep_freed_memory()
            patch_strided_1x1(net)
        for module in net.modules():
            if self.memory is not None and isinstance(module, SpikingNetwork | SpikingNeuron):
                module.memory = self.memory
            if self.compile == "off" and isinstance(module, SpikingNeuron):
                module.backend = "reference"
        return compile_whole(net) if self.compile == "model" else net


def choose_execution(
    *,
    device: Device | Literal["auto"] = "auto",
    precision: Precision | Literal["auto"] = "auto",
    channels_last: bool = True,
    compile: Compile = "neuron",
    memory: Memory | None = None,
) -> Execution:
    """Choose how to run: by default on a GPU if there is one, in bf16 if the hardware multiplies in it.

    Args:
        device: `"cpu"`, `"cuda"`, or `"auto"` for a GPU if there is one.
        precision: of matrix products, `"fp32"`, `"bf16"`, `"fp16"`, or `"auto"` for bf16 if the hardware multiplies in
            it.
        channels_last: whether tensors are stored channels-last, in which compiled neurons are fastest.
        compile: the neurons (`"neuron"`), the whole model (`"model"`) or nothing (`"off"`).
        memory: what layers keep for the backward pass (`shortback.ops.layer`) if neurons are compiled; the compiler of
            a whole model decides this by itself, and with nothing compiled PyTorch keeps everything. None uses the
            network's own setting.

    Raises:
        ValueError: an unknown choice, `device="cuda"` without a GPU, or a `memory` other than `"balanced"` without
            compiled neurons.
    """
    check_choice("device", device, Device, or_else=("auto",))
    check_choice("compile", compile, Compile)
    check_choice("precision", precision, Precision, or_else=("auto",))
    if memory is not None:
        check_choice("memory", memory, Memory)
    if memory not in (None, "balanced") and compile != "neuron":
        raise UserError(f"memory={memory!r} needs compiled neurons: use compile='neuron', not {compile!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device='cuda', but PyTorch sees no GPU: use device='cpu'")
    if precision == "auto":
        precision = "bf16" if _multiplies_in_bf16(device) else "fp32"
    return Execution(device=device, precision=precision, channels_last=channels_last, compile=compile, memory=memory)


def usual_execution(net: nn.Module | None = None) -> Execution:
    """The default of `choose_execution`; for a network in float64, without a lower precision."""
    is_double = net is not None and any(p.dtype == torch.float64 for p in net.parameters())
    return choose_execution(precision="fp32" if is_double else "auto")


def choice_in_words(net: nn.Module | None = None) -> str:
    """One line that says what `usual_execution` chooses, and how to choose something else.

    Args:
        net: the network to be trained, see `Execution.describe`.
    """
    execution = usual_execution(net)
    other = "fp32" if execution.precision != "fp32" else "bf16"
    return f"on {execution.describe(net)}; to choose: execution=choose_execution(precision={other!r})"


def _multiplies_in_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # respects `ATEN_CPU_CAPABILITY`
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def choose_num_workers(device: Device) -> int:
    """Choose the number of loader processes for one training process.

    It is 0 if the network runs on the CPU: loading takes a few percent of the time there, and a separate process would
    compete with the network's threads for cores.
    """
    if device == "cpu":
        return 0
    return min(8, max(1, num_cores() // local_world_size() - 1))


def _precision(execution: Execution) -> dict[str, Any]:
    """Precision arguments for Fabric, which accepts fp16 on a CPU (for tests and first tries) only as a plugin."""
    if execution.precision == "fp16":
        scaler = torch.amp.GradScaler(execution.device)  # type: ignore[attr-defined]
        return {"plugins": [MixedPrecision("16-mixed", device=execution.device, scaler=scaler)]}
    return {"precision": "bf16-mixed" if execution.precision == "bf16" else "32-true"}


def build_fabric(execution: Execution) -> Fabric:
    """Launch Fabric for this process, or for all processes that `torchrun` started."""
    local, total = local_world_size(), world_size()
    announcements = logging.getLogger("lightning_fabric")  # they repeat what `Execution.describe` says
    level = announcements.level
    announcements.setLevel(logging.WARNING)
    try:
        fabric = Fabric(
            accelerator=execution.device,
            devices=local,
            num_nodes=max(1, total // local),
            strategy="ddp" if total > 1 else "auto",
            **_precision(execution),
        )
        fabric.launch()
    finally:
        announcements.setLevel(level)
    return fabric

"""How a network runs on the machine at hand: device, precision, memory format, compilation."""

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
from shortback.inspection.pointwise import make_safe
from shortback.neurons import SpikingNeuron
from shortback.processes import local_world_size, num_cores, world_size
from shortback.spiking import SpikingNetwork
from shortback.torch_private import compile_whole


@dataclass(frozen=True, kw_only=True)
class Execution:
    """What was chosen, each value final (nothing is `auto` any more); a `memory` of None leaves a network its own."""

    device: Device
    precision: Precision
    channels_last: bool
    compile: Compile
    memory: Memory | None = None

    def describe(self, net: nn.Module | None = None) -> str:
        """One line for a person, of a network if one is given: only with neurons of ours are any compiled."""
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
        """The module to call in training: `net` in its memory format, its neurons on their backend, compiled if asked.

        `net` itself is changed in place; what comes back wraps it only if the whole model is compiled.
        """
        if self.channels_last and not any(p.ndim == 5 for p in net.parameters()):  # which have no such format
            net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.device == "cpu":
            keep_freed_memory()
            make_safe(net)
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
    """Settle what is left open: a GPU if there is one, bf16 where the hardware multiplies in it.

    Args:
        memory: what layers keep for the backward pass (`shortback.ops.layer`), where neurons are compiled; the compiler
            of a whole model decides that by itself, and with nothing compiled PyTorch keeps all. None for what the
            network says itself.

    Raises:
        ValueError: `device="cuda"` without a GPU, or a choice of memory that `compile` leaves no room for.
    """
    check_choice("compile", compile, Compile)
    check_choice("precision", precision, Precision, or_else=("auto",))
    if memory is not None:
        check_choice("memory", memory, Memory)
    if memory not in (None, "balanced") and compile != "neuron":
        raise UserError(f"memory={memory!r} works on compiled neurons: use compile='neuron', not {compile!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device='cuda', but PyTorch sees no GPU: use device='cpu'")
    if precision == "auto":
        precision = "bf16" if _multiplies_in_bf16(device) else "fp32"
    return Execution(device=device, precision=precision, channels_last=channels_last, compile=compile, memory=memory)


def choice_in_words(net: nn.Module | None = None) -> str:
    """What `choose_execution` chooses by itself, and how to choose: a line for who trains without having chosen.

    Args:
        net: that is trained, see `Execution.describe`.
    """
    execution = choose_execution()
    other = "fp32" if execution.precision != "fp32" else "bf16"
    return f"on {execution.describe(net)}; to choose: execution=choose_execution(precision={other!r})"


def _multiplies_in_bf16(device: str) -> bool:
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):  # by `ATEN_CPU_CAPABILITY` too
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def choose_num_workers(device: Device) -> int:
    """Loader processes for one training process.

    None if the network runs on the CPU: loading takes a few percent of the time there, and a process of its own
    would compete with the network's threads for their cores.
    """
    if device == "cpu":
        return 0
    return min(8, max(1, num_cores() // local_world_size() - 1))


def _precision(execution: Execution) -> dict[str, Any]:
    """Arguments of Fabric; it takes fp16 on a CPU, which tests and a first try use, as a plugin alone."""
    if execution.precision == "fp16":
        scaler = torch.amp.GradScaler(execution.device)  # type: ignore[attr-defined]
        return {"plugins": [MixedPrecision("16-mixed", device=execution.device, scaler=scaler)]}
    return {"precision": "bf16-mixed" if execution.precision == "bf16" else "32-true"}


def build_fabric(execution: Execution) -> Fabric:
    """Fabric for this process, and for as many as `torchrun` started."""
    local, total = local_world_size(), world_size()
    announcements = logging.getLogger("lightning_fabric")  # of what `Execution.describe` says
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

"""How long do exported networks, a frame of a stream and counting operations take, relative to plain inference?"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import shortback as sb
from harness import DisagreementError, Settings, Side, compare, run
from shortback.export.onnx import to_onnx
from shortback.export.program import to_program
from shortback.neurons import SpikingNeuron
from shortback.training import choose_execution

NUM_STEPS = 4


def network(settings: Settings) -> sb.SpikingNetwork:
    """A ResNet-20 with norm statistics that make deep layers fire."""
    torch.manual_seed(0)
    model = sb.create_model("resnet20", num_steps=NUM_STEPS, width=0.25 if settings.quick else 1.0)
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(16, 3, 32, 32))
    return model.eval()


def measure(settings: Settings) -> dict[str, Any]:
    """Time inference of ResNet-20 at T=4 in float32 on the CPU, by batch size, and a frame of a stream."""
    import onnxruntime

    model = network(settings)
    sizes = (settings.batch_size,) if settings.batch_size else ((2,) if settings.quick else (1, 32))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.onnx"
        to_onnx(model, torch.randn(2, 3, 32, 32)).save(str(file), external_data=False)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    program = to_program(model, torch.randn(2, 3, 32, 32)).module()
    return {"by_batch": {size: _compare(model, session, program, size, settings) for size in sizes}}


def _compare(model: sb.SpikingNetwork, session: Any, program: nn.Module, size: int, settings: Settings) -> dict:
    x = torch.randn(size, 3, 32, 32)
    compiled = copy.deepcopy(model)
    choose_execution(device="cpu", compile="neuron", precision="fp32").prepare(compiled)
    reference = copy.deepcopy(model)
    for module in reference.modules():
        if isinstance(module, SpikingNeuron):
            module.backend = "reference"
    stream = sb.stream(compiled)
    _, state = stream(x)
    channels_last = x.contiguous(memory_format=torch.channels_last)
    calls: dict[str, Callable[[], Any]] = {
        "compiled": lambda: compiled(channels_last),
        "eager": lambda: reference(x),
        "onnxruntime": lambda: torch.from_numpy(session.run(None, {"input": x.numpy()})[0]),
        "torch.export": lambda: program(x),
        "a frame": lambda: stream(channels_last, state)[0],
        "counting": lambda: sb.count_operations(compiled, [channels_last]).acs,
    }
    sides = [Side(name, lambda call=call: _without_gradients(call)) for name, call in calls.items()]
    over = [("onnxruntime", "compiled"), ("onnxruntime", "eager"), ("torch.export", "eager"), ("compiled", "eager")]
    over += [("a frame", "compiled"), ("counting", "compiled")]

    def gate() -> dict[str, float]:
        with torch.no_grad():
            return _agree({name: calls[name]() for name in ("compiled", "eager", "onnxruntime", "torch.export")})

    return compare(sides, gate=gate, over=over, title=f"batch {size}", **settings.timing() | {"device": "cpu"})


def _without_gradients(call: Callable[[], Any]) -> Callable[[], Any]:
    @torch.no_grad()
    def step() -> Any:
        return call()

    return step


def _agree(outputs: dict[str, Tensor]) -> dict[str, float]:
    """The largest difference of each output from the first; classes must agree for all but one image in a hundred."""
    first, *_ = outputs.values()
    found = {}
    for name, other in outputs.items():
        found[name] = float((other - first).abs().max())
        if (other.argmax(1) != first.argmax(1)).float().mean() > 0.01:
            raise DisagreementError(f"{name}: other classes")
    return found


def main(argv: Sequence[str] | None = None) -> None:
    run(measure, argv, takes=("batch_size",))


if __name__ == "__main__":
    main()

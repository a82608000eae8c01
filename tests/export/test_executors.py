"""What runs a file is built once, and gives the same of every batch."""

from types import SimpleNamespace

import pytest
import torch

from shortback.export import executors
from shortback.export.nir import to_nir
from shortback.export.nir_readers import DT
from shortback.export.onnx import to_onnx
from shortback.export.program import to_program
from shortback.runs import export
from tests.export.networks import images, network


def quantity(monkeypatch, owner, name):
    """Every call of a function, which still does what it did."""
    calls, before = [], getattr(owner, name)

    def call(*arguments, **settings):
        calls.append(name)
        return before(*arguments, **settings)

    monkeypatch.setattr(owner, name, call)
    return calls


def write(model, file, to):
    """The file, and what builds that which runs it."""
    if to == "nir":
        nir, nirtorch = pytest.importorskip("nir"), pytest.importorskip("nirtorch")
        nir.write(file, to_nir(model, images()))
        return nirtorch, "nir_to_torch"
    if to == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        to_onnx(model, images()).save(str(file), external_data=False)
        return onnxruntime, "InferenceSession"
    file.write_bytes(b"")
    torch.export.save(to_program(model, images()), file)
    return torch.export.ExportedProgram, "module"


@pytest.mark.slow
@pytest.mark.parametrize("to", ["nir", "onnx", "torch"])
def test_a_test_split_is_run_by_one_executor(tmp_path, monkeypatch, to):
    model, x = network("foreign"), images(7)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[2] = (y[2] + 1) % 10  # which is then wrong
    batches = [(x[:3], y[:3]), (x[3:6], y[3:6]), (x[6:], y[6:])]
    run = SimpleNamespace(
        recipe=SimpleNamespace(model=SimpleNamespace(num_steps=3)),
        splits=SimpleNamespace(source=SimpleNamespace(test=None)),
        loader=lambda source, training: SimpleNamespace(epoch=lambda number: batches),
    )
    file = tmp_path / ("net.pt2" if to == "torch" else f"net.{to}")
    built = quantity(monkeypatch, *write(model, file, to))
    assert export._accuracy(run, file, to=to) == pytest.approx(6 / 7)
    assert len(built) == 1


def test_batches_leave_nothing_behind():
    pytest.importorskip("nir")
    model, x = network("foreign"), images(5)
    run = executors.nir_runner(to_nir(model, x), num_steps=3, dt=DT)
    first, other, again = run(x[:3]), run(x[3:]), run(x[:3])
    assert torch.equal(first.outputs, again.outputs)
    assert other.spikes["act"].shape[:2] == (3, 2)
    assert all(torch.equal(first.spikes[name], again.spikes[name]) for name in first.spikes)

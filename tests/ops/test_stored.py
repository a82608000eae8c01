"""Kernels on disk: a later process computes the same with them, and compiles nothing."""

import dataclasses
import json
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch

from shortback.neurons import LIF, PLIF
from shortback.ops import backend, kernels, reference, stored
from shortback.surrogates import Arctan, Surrogate, Triangular

TRAIN = """
import hashlib, json, torch
from shortback.models import create_model
torch.manual_seed(0)
net = create_model("resnet20", num_steps=2, width=0.25, in_channels=1)
for size in (12, 10):
    net(torch.rand(4, 1, size, size)).square().sum().backward()
numbers = b"".join(p.grad.numpy().tobytes() for p in net.parameters())
compiled = torch._dynamo.utils.compilation_time_metrics.get("compile_file", [])
graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
print(json.dumps([hashlib.sha256(numbers).hexdigest(), graphs, len(compiled)]))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no kernels in this process but that of the first look at the compiler."""
    backend.resolve("auto", "cpu")
    torch.manual_seed(0)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernels, "_KERNELS", {})
    return tmp_path


def files(cache):
    return sorted((cache / "shortback").glob("*.bin"))


def both_ways(neuron, x):
    """The spikes and the gradient of a neuron."""
    x = x.clone().requires_grad_()
    spikes = neuron(x)
    (spikes * torch.arange(spikes.numel(), dtype=x.dtype).view_as(spikes)).sum().backward()
    return spikes, x.grad


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_computes_the_same(tmp_path):
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    numbers = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        gradients, graphs, files = json.loads(done.stdout.splitlines()[-1])
        numbers.append(gradients)
    assert graphs == 0
    assert files <= 1  # a header, by which its compiled form is found
    assert numbers[0] == numbers[1]


def test_what_was_stored_is_loaded(cache, monkeypatch):
    x = torch.randn(4, 3, 5)
    expected = both_ways(LIF(2, backend="compiled", threshold=0.83), x)
    assert len(files(cache)) == 2
    monkeypatch.setattr(kernels, "_KERNELS", {})
    monkeypatch.setattr(stored, "compile_ahead", None)  # would raise
    for a, b in zip(both_ways(LIF(2, backend="compiled", threshold=0.83), x), expected, strict=True):
        assert torch.equal(a, b)


def test_a_damaged_file_is_made_again(cache, monkeypatch):
    x = torch.randn(4, 3, 5)
    expected = both_ways(LIF(2, backend="compiled", threshold=0.84), x)
    whole = [file.stat().st_size for file in files(cache)]
    for file in files(cache):
        file.write_bytes(file.read_bytes()[:1000])
    monkeypatch.setattr(kernels, "_KERNELS", {})
    for a, b in zip(both_ways(LIF(2, backend="compiled", threshold=0.84), x), expected, strict=True):
        assert torch.equal(a, b)
    assert [file.stat().st_size for file in files(cache)] == pytest.approx(whole, rel=0.1)


def test_a_folder_that_cannot_be_written_is_done_without(cache):
    (cache / "shortback").write_text("a file")
    spikes, _ = both_ways(LIF(2, backend="compiled", threshold=0.85), torch.randn(4, 3, 5))
    assert spikes.shape == (4, 3, 5)


def test_where_the_compiler_may_keep_nothing_nothing_is_stored(cache):
    with torch._inductor.config.patch(fx_graph_cache=False):
        both_ways(LIF(2, backend="compiled", threshold=0.86), torch.randn(4, 3, 5))
    assert files(cache) == []


def test_a_call_that_a_stored_kernel_does_not_fit_is_compiled_by_dynamo(cache):
    """The kernel of float32 spikes knows nothing of another default dtype, which a guard tells."""
    neuron, x = LIF(2, backend="compiled", threshold=0.87), torch.randn(4, 3, 5)
    expected = reference.multi_step(x.view(2, 2, 3, 5), dynamics=neuron.dynamics, decay=neuron.decay, num_steps=2)[0]
    assert torch.equal(neuron(x), expected.flatten(0, 1))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(neuron(x), expected.flatten(0, 1))
    finally:
        torch.set_default_dtype(torch.float32)
    (kernel,) = kernels._KERNELS.values()
    assert len(torch._C._dynamo.eval_frame._debug_get_cache_entry_list(kernel.code)) == 1


def test_what_differs_has_files_of_its_own(cache):
    x = torch.randn(4, 3, 5)
    neurons = [
        LIF(2, backend="compiled", threshold=0.88),
        LIF(2, backend="compiled", threshold=0.88, surrogate=Arctan()),
        LIF(2, backend="compiled", threshold=0.88, surrogate=Triangular(half_width=0.5)),
        LIF(4, backend="compiled", threshold=0.88),
        PLIF(2, backend="compiled", threshold=0.88),
    ]
    for number, neuron in enumerate(neurons):
        both_ways(neuron, x)
        assert len(files(cache)) == 2 * number + 2
    both_ways(neurons[0], x.double())
    both_ways(neurons[0], torch.randn(4, 3, 7))  # of another size: the same kernel
    assert len(files(cache)) == 2 * len(neurons) + 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Box(Surrogate):
    """A surrogate of the user's own, whose code no file name could tell from that of its next version."""

    _shape_area = 1.0

    def _shape(self, z):
        return (z.abs() < 0.5).to(z.dtype)

    def _integral(self, z):
        return z.clamp(-0.5, 0.5)


def test_code_of_others_is_not_stored(cache):
    x = torch.randn(4, 3, 5)
    compiled, by_hand = (
        both_ways(LIF(2, backend=name, threshold=0.5, surrogate=Box()), x) for name in ("compiled", "reference")
    )
    assert torch.equal(compiled[0], by_hand[0])
    torch.testing.assert_close(compiled[1], by_hand[1])  # a product and a sum may be rounded once or twice
    assert files(cache) == []


class Pair(NamedTuple):
    first: object
    second: object


def test_constants_that_repr_does_not_tell():
    assert stored._has_faithful_repr((None, True, 1, 0.1, "word", torch.float32, Pair(1, Triangular())))
    for value in (object(), [1], torch.zeros(2), (1, Box()), Pair(1, lambda: 1), Triangular):
        assert not stored._has_faithful_repr(value)

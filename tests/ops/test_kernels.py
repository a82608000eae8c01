"""One compiled kernel for all sizes."""

import pytest
import torch

from shortback import ops
from shortback.neurons import LIF
from shortback.ops import kernels
from shortback.surrogates import Rectangular


def double_and_count(factor, x, offset):
    return x * factor + (0 if offset is None else offset)


def test_a_kernel_serves_all_sizes_but_another_number_of_steps_needs_its_own():
    kernels.run(double_and_count, (2,), torch.ones(4, 3, 5), None)
    before = kernels.num_kernels()
    with torch.compiler.set_stance("fail_on_recompile"):
        for shape in ((4, 2, 7), (4, 9, 2), (4, 64, 64)):
            assert torch.equal(kernels.run(double_and_count, (2,), torch.ones(shape), None), torch.full(shape, 2.0))
    assert kernels.num_kernels() == before
    kernels.run(double_and_count, (2,), torch.ones(5, 3, 5), None)
    assert kernels.num_kernels() == before + 1


def test_what_is_compiled_for_is_told_apart():
    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(kernels.run(double_and_count, (3,), x, None), x * 3)
    assert torch.equal(kernels.run(double_and_count, (3,), x, torch.tensor(1.0)), x * 3 + 1)
    assert kernels.run(double_and_count, (3,), x.double(), None).dtype == torch.float64
    assert torch.equal(kernels.run(double_and_count, (3,), x[:, :1], None), x[:, :1] * 3)


@pytest.mark.parametrize("stored", [True, False])
def test_a_kernel_serves_all_sizes_after_a_reset_too(stored, monkeypatch):
    """`torch.compiler.reset()` forgets what Dynamo compiled, and with it which sizes are free."""
    monkeypatch.setattr(kernels, "_KERNELS", {})
    if not stored:
        monkeypatch.setattr(kernels, "load_or_compile", lambda *arguments, **settings: None)
    compiled = torch._dynamo.utils.counters["stats"]

    def graphs(*sizes):
        before = compiled["unique_graphs"]
        for size in sizes:
            ops.multi_step(torch.zeros(2, size), dynamics=ops.Dynamics(), decay=0.5, num_steps=2, backend="compiled")
        return compiled["unique_graphs"] - before

    graphs(4)
    torch.compiler.reset()
    assert graphs(4, 5, 9) == (0 if stored else 1)


def test_any_number_of_threads(monkeypatch):
    """Dynamo guards on it, and refuses to compile one function more than eight times."""
    compiled = []
    monkeypatch.setattr(kernels, "compile_whole", lambda function: compiled.append(function.__code__) or function)
    monkeypatch.setattr(kernels, "_KERNELS", {})
    num_threads = torch.get_num_threads()
    try:
        for number in (1, 2, 3, 2):
            torch.set_num_threads(number)
            kernels.run(double_and_count, (2,), torch.ones(4, 3), None)
    finally:
        torch.set_num_threads(num_threads)
    assert len(set(map(id, compiled))) == len(compiled) == 3


def test_what_dynamo_guards_on_has_a_kernel_of_its_own(monkeypatch):
    compiled = []
    monkeypatch.setattr(kernels, "compile_whole", lambda function: compiled.append(function.__code__) or function)
    monkeypatch.setattr(kernels, "_KERNELS", {})
    kernels.run(double_and_count, (2,), torch.ones(4, 3), None)
    with torch.inference_mode():
        kernels.run(double_and_count, (2,), torch.ones(4, 3), None)
    torch.use_deterministic_algorithms(True)
    try:
        kernels.run(double_and_count, (2,), torch.ones(4, 3), None)
    finally:
        torch.use_deterministic_algorithms(False)
    assert len(set(map(id, compiled))) == len(compiled) == 3


def test_a_state_of_any_strides_is_given_to_kernels_contiguous(monkeypatch):
    given = []
    monkeypatch.setattr(
        kernels, "compile_whole", lambda function: lambda *tensors: given.extend(tensors) or function(*tensors)
    )
    monkeypatch.setattr(kernels, "_KERNELS", {})
    neuron = LIF(1, backend="compiled")
    for state in (torch.zeros(()).expand(4, 3), torch.zeros(4, 3, 2)[..., 0], torch.zeros(4, 6)[:, ::2]):
        x = torch.ones(4, 3, requires_grad=True)
        _, after = neuron.step(x, state)
        after.sum().backward()  # whose gradient is one number, expanded
    assert len(given) > 10
    assert all(tensor is None or tensor.is_contiguous() for tensor in given)


@pytest.mark.slow
@pytest.mark.parametrize("stored", [True, False])
def test_autocast_compiles_nothing_again(stored, monkeypatch):
    """Dynamo guards on it, and a backward pass runs without: each kernel would be there twice, for one size each."""
    if not stored:
        monkeypatch.setattr(kernels, "load_or_compile", lambda *arguments, **settings: None)
    monkeypatch.setattr(kernels, "_KERNELS", {})
    neuron = LIF(2, backend="compiled", surrogate=Rectangular(half_width=0.77))
    for size, enabled in ((8, True), (12, False), (16, True)):
        x = torch.randn(4, size, 3, 3, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            spikes = neuron(x)
            assert torch.is_autocast_enabled("cpu") == enabled
            spikes.sum().backward()
    codes = [kernel.code for kernel in kernels._KERNELS.values()]
    by_dynamo = [len(torch._C._dynamo.eval_frame._debug_get_cache_entry_list(code)) for code in codes]
    assert by_dynamo == ([0, 0] if stored else [1, 1])

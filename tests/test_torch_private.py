"""On the oldest and the newest torch that are allowed: what is relied on without a promise still holds."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from shortback import torch_private


def test_a_compiled_module_is_seen_without_running_it():
    plain = nn.Linear(2, 2)
    assert not torch_private.is_compiled(plain)
    wrapped = torch.compile(nn.Linear(2, 2))
    assert torch_private.is_compiled(wrapped)
    assert isinstance(getattr(wrapped, torch_private.UNCOMPILED), nn.Linear)
    marked = nn.Linear(2, 2)
    marked.compile()
    assert torch_private.is_compiled(marked)


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_every_kind_of_hook_is_seen(register):
    module = nn.Linear(2, 2)
    assert not torch_private.is_hooked(module)
    handle = getattr(module, register)(lambda *_: None)
    assert torch_private.is_hooked(module)
    handle.remove()
    assert not torch_private.is_hooked(module)
    everywhere = getattr(nn.modules.module, register.replace("register_", "register_module_"))(lambda *_: None)
    assert torch_private.is_hooked(module)
    everywhere.remove()
    assert not torch_private.is_hooked(module)


def test_hooks_are_there_until_they_are_removed():
    module, mine, other = nn.ReLU(), (lambda *_: None), (lambda *_: None)
    handle = module.register_forward_hook(mine)
    module.register_forward_hook(other)
    assert torch_private.hooks_of(module) == [mine, other]
    handle.remove()
    assert torch_private.hooks_of(module) == [other]
    torch_private.drop_hooks(module, lambda hook: hook is other)
    assert torch_private.hooks_of(module) == []


def test_a_change_in_place_raises_the_version_of_all_views():
    x = torch.zeros(4)
    before = torch_private.version_of(x)
    x[:2].add_(1)
    assert torch_private.version_of(x) > before


def test_a_replaced_forward_is_seen():
    module = nn.Conv2d(1, 1, 1)
    assert not torch_private.is_patched(module)
    module.forward = lambda x: x
    assert torch_private.is_patched(module)


def test_replicas_of_data_parallel_are_marked():
    module = nn.Linear(2, 2)
    assert not torch_private.is_replica(module)
    assert torch_private.is_replica(module._replicate_for_data_parallel())


def test_a_size_that_may_change_compiles_once():
    compiled = []

    def counting(graph, inputs):
        compiled.append(graph)
        return graph.forward

    run = torch.compile(lambda x: x + 1, backend=counting)
    x = torch.zeros(3, 5)
    torch_private.mark_dynamic(x, 1)
    for size in (5, 6, 9):
        run(x if size == 5 else torch.zeros(3, size))
    assert len(compiled) == 1


def test_compiled_code_is_forgotten_by_a_reset():
    def function(x):
        return x + 1

    assert not torch_private.has_compiled(function.__code__)
    torch.compile(function, backend="eager")(torch.zeros(2))
    assert torch_private.has_compiled(function.__code__)
    torch.compiler.reset()
    assert not torch_private.has_compiled(function.__code__)


def test_transforms_are_seen():
    seen = []

    def function(x):
        seen.append((torch_private.is_transformed(x), torch_private.is_functional()))
        with torch_private.without_modes():
            assert not torch_private.is_functional()
        return x.sum()

    x = torch.zeros(2)
    function(x)
    torch.func.grad(function)(x)
    torch.func.vmap(function)(x[None])
    assert seen == [(False, False), (True, True), (True, True)]


def test_norms_by_hand():
    assert [float(n) for n in torch_private.norms_of([torch.tensor([3.0, 4.0]), torch.zeros(1)])] == [5.0, 0.0]


BOTH_WAYS = """
import torch
from shortback.neurons import LIF

x = torch.linspace(-1, 3, 12 * 35, dtype=torch.float64).reshape(12, 5, 7)
results = []
for backend in ("reference", "compiled"):
    neuron, current = LIF(4, backend=backend), x.clone().requires_grad_()
    spikes = neuron(current)
    (spikes * x).sum().backward()
    results += [spikes.detach(), current.grad]
torch.testing.assert_close(results[2:], results[:2])
print(torch.backends.cpu.get_cpu_capability())
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.cpu._is_avx512_supported(), reason="takes a processor that computes in two widths")
def test_processors_share_a_cache_of_compiled_kernels(tmp_path):
    """Inductor's own key forgets the width of vectors: half of what the second computes was never written."""
    for capability in ("avx512", "avx2"):
        env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "ATEN_CPU_CAPABILITY": capability}
        done = subprocess.run(
            [sys.executable, "-c", BOTH_WAYS], env=env, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == capability.upper()


def test_autocast_is_off_within_and_on_again():
    x = torch.ones(2, 2)

    def fail(tensor):
        raise RuntimeError("of the function")

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch_private.without_autocast(lambda none, a: a @ a, None, x).dtype == torch.float32
        with pytest.raises(RuntimeError, match="of the function"):
            torch_private.without_autocast(fail, x)
        assert (x @ x).dtype == torch.bfloat16
    assert torch_private.without_autocast(lambda a: a @ a, x).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")

"""1x1 convolutions with a stride: the same function in two steps, and gradients that are right on every processor."""

import copy
import functools
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.pointwise import (
    Subsample,
    is_patched,
    patch_strided_1x1,
    patched_strided_1x1,
    unpatch_strided_1x1,
)
from shortback.models import create_model
from shortback.training import choose_execution, fit

ROOT = Path(__file__).parents[2]
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("processor", [{}, AVX2], ids=["this", "avx2"])
def test_weight_gradients_of_all_convolutions_are_those_by_hand(threads, processor):
    """Of every shape in our models and the foreign ones, in a process of its own: what is wrong hangs or crashes."""
    if processor and torch.backends.cpu.get_cpu_capability() == "AVX2":
        pytest.skip("is what this processor has")
    command = [sys.executable, "tests/convolution_gradients.py", str(threads)]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **processor}, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert int(result.stdout) > 500


def downsampling(channels=4, **settings):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 8, 1, stride=2, **settings))


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"groups": 2}, {"padding": "valid"}])
@pytest.mark.parametrize("size", [(7, 7), (8, 5), (1, 1)])
def test_two_steps_are_the_same_function(settings, size):
    x = torch.randn(3, 4, *size)
    usual, safe = downsampling(**settings), downsampling(**settings)
    assert patch_strided_1x1(safe) == [safe[0]]
    outputs = [net.double()(x.double()) for net in (usual, safe)]  # in which the usual one has no fault
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(outputs[1], outputs[0])
    for mine, theirs in zip(safe.parameters(), usual.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_inference_runs_what_was_written():
    x, net = torch.randn(2, 4, 8, 8), downsampling()
    with torch.no_grad():
        before = net(x)
        patch_strided_1x1(net)
        assert torch.equal(net(x), before)


def test_only_what_may_fail_is_changed():
    net = nn.ModuleList(
        [
            *(nn.Conv2d(16, 8, 1, 2), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(4, 8, 1, 2, padding=1)),
            nn.Conv2d(4, 8, 1, 2).double(),
        ]
    )
    assert patch_strided_1x1(net) == []


def test_what_was_changed_is_said_once_and_undone(caplog):
    net = downsampling()
    with caplog.at_level(logging.WARNING, "shortback"):
        changed = patch_strided_1x1(net)
        assert patch_strided_1x1(net) == []
    (record,) = caplog.records
    assert record.message.endswith(": 0")
    assert is_patched(net[0])
    unpatch_strided_1x1(changed)
    assert not is_patched(net[0])
    with patched_strided_1x1(net):
        assert is_patched(net[0])
    assert not is_patched(net[0])


def test_a_copy_computes_with_its_own_weights():
    net = downsampling()
    patch_strided_1x1(net)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        nn.init.zeros_(copied[0].weight)
        nn.init.zeros_(copied[0].bias)
        assert not copied(torch.randn(1, 4, 4, 4)).any()


def test_a_compiled_graph_runs_the_two_steps():
    net, x = downsampling(), torch.randn(2, 4, 8, 8)
    patch_strided_1x1(net)
    out = torch.compile(net, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(out, net(x))


def test_branches_make_a_foreign_network_safe_until_they_are_stripped():
    torchvision = pytest.importorskip("torchvision")
    block = torchvision.models.resnet.BasicBlock
    ann = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10)
    downsample = nn.Sequential(nn.Conv2d(64, 64, 1, 2, groups=8, bias=False), nn.BatchNorm2d(64))
    ann.layer2 = nn.Sequential(block(64, 64, 2, downsample))
    ann.layer3 = nn.Sequential(block(64, 256, 2, nn.Sequential(nn.Conv2d(64, 256, 1, 2), nn.BatchNorm2d(256))))
    neuron = functools.partial(sb.LIF, backend="reference")
    net = sb.attach(sb.spikify(ann, num_steps=2, neuron=neuron), at=["layer2"], sample=torch.randn(2, 3, 32, 32))
    convolution = net.model.get_submodule("network.layer2.0.downsample.0")
    assert [m for m in net.modules() if is_patched(m)] == [convolution]
    plain = sb.strip(net)
    assert not any(map(is_patched, plain.modules()))


def test_prepared_networks_are_safe():
    net = downsampling()
    choose_execution(device="cpu", precision="fp32").prepare(net)
    assert is_patched(net[0])


@pytest.mark.parametrize("residual", ["spiking", "sew", "membrane"])
def test_our_networks_have_no_such_convolution(residual, caplog):
    model = create_model("resnet20", residual=residual, width=0.25)
    assert patch_strided_1x1(model) == []
    assert sum(isinstance(m, Subsample) for m in model.modules()) == 2
    assert "network.layer2.0.shortcut.conv.weight" in model.state_dict()
    assert not caplog.records


def test_training_is_safe_and_leaves_the_network_as_it_was(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 1, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    seen = []
    net[1].register_forward_hook(lambda *_: seen.append(is_patched(net[0])) if torch.is_grad_enabled() else None)
    data = torch.utils.data.TensorDataset(torch.randn(8, 1, 6, 6), torch.arange(8) % 2)
    execution = choose_execution(device="cpu", precision="fp32", compile="off")
    fit(net, torch.utils.data.DataLoader(data, 4), epochs=1, folder=tmp_path, lr=0.01, execution=execution)
    assert seen
    assert all(seen)
    assert not is_patched(net[0])

"""NIR files: the equations, and other libraries that read them."""

import functools
import importlib.util

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import shortback as sb
from shortback.errors import UserError
from shortback.export.check import compare, record
from shortback.export.executors import nir_runner
from shortback.export.nir import to_nir
from shortback.export.nir_readers import DT
from tests.export.networks import LIF, fires, images, network

nir = pytest.importorskip("nir")

IF = functools.partial(sb.IF)
FAMILIES = [
    ("resnet20", {}),
    ("resnet20", {"residual": "sew"}),
    ("resnet20", {"residual": "membrane"}),
    ("resnet20", {"residual": "plain", "norm": "none"}),
    ("resnet20", {"neuron": IF}),
    ("resnet20", {"neuron": sb.PLIF}),
    ("resnet20", {"neuron": functools.partial(sb.LIF, decay=0.25, decay_input=True, threshold=0.6)}),
    ("resnet20", {"neuron": functools.partial(sb.LIF, decay=0.0)}),
    ("resnet20_modified", {}),
    ("resnet18", {"stem": "imagenet"}),
    ("vgg11", {}),
    ("vggsnn", {}),
    ("foreign", {}),
]


@pytest.mark.parametrize(("name", "settings"), FAMILIES, ids=range(len(FAMILIES)))
def test_the_file_fires_the_same_spikes(name, settings, tmp_path):
    model, x = network(name, **settings), images()
    nir.write(tmp_path / "net.nir", to_nir(model, x))
    check = compare(model, x, nir_runner(nir.read(tmp_path / "net.nir"), num_steps=3, dt=DT)(x), executor="nirtorch")
    check.require()
    assert check.flipped < 1e-3 * check.spikes
    assert check.agreement == 1
    fired = sum(int(spikes.sum()) for spikes in record(model, x).spikes.values())
    assert fired > 0.01 * check.spikes
    if not check.flipped:
        assert max(check.difference_by_step) < 1e-5


def test_sequences(tmp_path):
    model, x = network("resnet20"), images(num_steps=3)
    check = compare(model, x, nir_runner(to_nir(model, x), num_steps=3, dt=DT)(x), executor="nirtorch")
    assert check.flipped == 0


def test_a_pruned_network_is_written_as_it_is(tmp_path):
    model, x = network("foreign"), images()
    prune.l1_unstructured(model.network.stem[0], "weight", 0.5)
    graph = to_nir(model, x)
    assert "stem.1" not in graph.nodes
    assert ((graph.nodes["stem.0"].weight == 0) == (model.network.stem[0].weight_mask.numpy() == 0)).all()
    check = compare(model, x, nir_runner(graph, num_steps=3, dt=DT)(x), executor="nirtorch")
    check.require()
    assert check.flipped < 1e-3 * check.spikes


@pytest.mark.parametrize("dt", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_step_that_takes_no_time_is_refused(dt):
    with pytest.raises(UserError, match=f"dt={dt:g}: seconds per step must be above 0"):
        to_nir(network("resnet20", neuron=IF), images(), dt=dt)


def test_the_numbers():
    graph = to_nir(network("resnet20"), images())
    node = graph.nodes["layer1.0.neuron1"]
    assert isinstance(node, nir.LIF)
    assert node.tau.shape == (4, 32, 32)
    assert set(node.tau.flat) == {2 * DT}
    assert set(node.r.flat) == {2.0}
    assert set(node.v_threshold.flat) == {np.nextafter(np.float32(1), np.float32(0))}
    assert not node.v_reset.any()
    assert not node.v_leak.any()
    assert sorted(source for source, target in graph.edges if target == "layer1.0.neuron2") == [
        "layer1.0.conv2",
        "stem.neuron1",
    ]
    assert graph.nodes["layer2.0.shortcut.conv"].stride == (2, 2)
    assert graph.metadata["num_steps"] == 3
    assert graph.metadata["dt"] == DT
    integrating = to_nir(network("resnet20", neuron=IF), images()).nodes["stem.neuron1"]
    assert set(integrating.r.flat) == {1 / DT}
    fires_above = to_nir(network("resnet20", neuron=functools.partial(LIF, fires_above=True)), images())
    assert set(fires_above.nodes["stem.neuron1"].v_threshold.flat) == {1.0}


def test_a_module_called_twice_is_two_nodes():
    graph = to_nir(network("foreign"), images())
    assert {"block1.relu", "block1.relu:2"} <= set(graph.nodes)


def test_pooling_of_spikes_is_any_of_them():
    """A window without a spike, with one, with all; at edges too."""

    class Pools(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.pool, self.fc = nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Linear(16, 2)
            self.conv = nn.Conv2d(1, 1, 1)

        def forward(self, x):
            return self.fc(self.pool(self.act(self.conv(x))).flatten(1))

    model = sb.spikify(Pools(), num_steps=2, neuron=functools.partial(sb.LIF, decay=0.0))
    x = torch.zeros(3, 1, 8, 8)
    x[1, :, 0, 0] = x[1, :, 4, 5] = 50
    x[2] = 50
    with torch.no_grad():
        model.network.conv.weight.fill_(1)
    for importer in ("any", "spikingjelly"):
        if importer == "spikingjelly":
            model.network.act.decay = 0.5
        check = compare(
            model, x, nir_runner(to_nir(model, x, importer=importer), num_steps=2, dt=DT)(x), executor="nirtorch"
        )
        assert check.flipped == 0
        assert max(check.difference_by_step) < 1e-6


def test_spikingjelly_reads_it(tmp_path):
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based.nir_exchange.from_nir import import_from_nir

    for name, settings in (("resnet20", {}), ("resnet20", {"neuron": IF}), ("vgg11", {}), ("foreign", {})):
        model, x = network(name, **settings), images()
        nir.write(tmp_path / "net.nir", to_nir(model, x, importer="spikingjelly"))
        theirs, state, outputs = import_from_nir(str(tmp_path / "net.nir")), None, []
        with torch.no_grad():
            for _ in range(3):
                y, state = theirs(x, state)
                outputs.append(y)
            torch.testing.assert_close(torch.stack(outputs).mean(0), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(importlib.util.find_spec("snntorch") is None, reason="needs snnTorch")
def test_snntorch_reads_it(tmp_path, capsys):
    from snntorch.import_nir import import_from_nir

    for settings in ({}, {"neuron": IF}):
        model, x = network("resnet20", **settings), images(1)
        nir.write(tmp_path / "net.nir", to_nir(model, x, importer="snntorch"))
        theirs = import_from_nir(nir.read(tmp_path / "net.nir"))
        outputs, state = [], None
        with torch.no_grad():
            for _ in range(3):
                y, state = theirs(x[0], state)  # without a batch: it flattens all axes
                outputs.append(y)
            torch.testing.assert_close(torch.stack(outputs).mean(0), model(x)[0], rtol=1e-4, atol=1e-5)


class One(nn.Module):
    """A network of a convolution, a neuron, and something between it and the classifier."""

    def __init__(self, between, features=2 * 8 * 8):
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 2, 1), nn.ReLU()
        self.between, self.fc = between, nn.Linear(features, 4)

    def forward(self, x):
        x = self.act(self.conv(x))
        return self.fc(self.between(x).flatten(1))


class Growing(sb.LIF):
    def leak(self):
        return 1.5


class Doubles(nn.Module):
    def forward(self, x):
        return x + x


class Multiplies(nn.Module):
    def forward(self, x):
        return x * 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: sb.spikify(One(Doubles()), num_steps=2), r"adds the output of act twice"),
        (lambda: sb.spikify(One(Multiplies()), num_steps=2), r"NIR has no mul"),
        (lambda: sb.spikify(One(nn.MaxPool2d(2, ceil_mode=True)), num_steps=2), "mat1"),
        (lambda: sb.spikify(One(nn.PixelShuffle(1)), num_steps=2), r"between: NIR has no PixelShuffle; it has"),
        (lambda: sb.spikify(One(nn.LPPool2d(1, 1)), num_steps=2), r"between: NIR has no LPPool2d"),
        (
            lambda: sb.spikify(One(nn.Identity()), num_steps=2, neuron=functools.partial(sb.LIF, reset="soft")),
            "cannot write a soft reset",
        ),
        (lambda: sb.spikify(One(nn.Identity()), num_steps=2, neuron=Growing), "outside"),
        (lambda: sb.spikify(One(nn.Identity()), num_steps=2, neuron=functools.partial(sb.LIF, initial=0.5)), "begins"),
        (lambda: sb.create_model("vgg11", norm="tebn", width=0.25), "differs from step to step"),
    ],
    ids=range(9),
)
def test_what_nir_lacks_is_said(model, message):
    size = 32 if message.startswith("differs") else 8
    with pytest.raises(ValueError, match=message):
        to_nir(fires(model(), size) if size == 32 else model(), torch.randn(2, 3, size, size))


def test_rounding_up_is_refused_where_it_does_something():
    pool = nn.AvgPool2d(2, ceil_mode=True)
    to_nir(sb.spikify(One(pool, 2 * 4 * 4), num_steps=2), torch.randn(2, 3, 8, 8))
    with pytest.raises(ValueError, match="ceil_mode on a size of"):
        to_nir(sb.spikify(One(pool, 2 * 4 * 4), num_steps=2), torch.randn(2, 3, 7, 7))
    before = nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match="other than spikes"):
        to_nir(sb.spikify(One(before, 2 * 4 * 4), num_steps=2), torch.randn(2, 3, 8, 8))


def test_what_is_no_network_or_no_sample_is_said():
    with pytest.raises(ValueError, match=r"an export takes a SpikingNetwork, .* and this is Linear"):
        to_nir(nn.Linear(2, 2), images())
    with pytest.raises(ValueError, match="does not go through the network"):
        to_nir(network("resnet20"), torch.randn(2, 1, 32, 32))
    model = network("resnet20")
    with pytest.raises(ValueError, match="importer='lava'"):
        to_nir(model, images(), importer="lava")
    branched = sb.attach(model, at="stages", sample=images())
    with pytest.raises(ValueError, match=r"give strip\(net\), which has no branches"):
        to_nir(branched, images())


@pytest.mark.parametrize("layer", [nn.Conv2d(2, 4, (3, 5), padding=(1, 2)), nn.MaxPool2d((2, 1))])
def test_kernels_that_are_not_square_are_refused_by_name(layer):
    parts = [nn.Conv2d(2, 2, 1), sb.LIF(2, backend="reference"), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = sb.SpikingNetwork(nn.Sequential(*parts, nn.LazyLinear(3)), num_steps=2)
    x = torch.randn(2, 2, 8, 8)
    model(x)
    with pytest.raises(ValueError, match=r"to_nir\(\): 2.*: NIR has square kernels only"):
        to_nir(model, x)


class Skips(nn.Module):
    """Adds in place, and goes on with the tensor that has changed."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.conv = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        self.second, self.fc = nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x, features=False, name="a", k=3):
        x = self.first(self.stem(x))
        y = self.conv(x)
        y.add_(x)
        return self.fc(self.second(y).mean((2, 3)))


def test_an_addition_in_place_and_default_arguments():
    torch.manual_seed(0)
    model, x = sb.spikify(Skips(), num_steps=3).eval(), 2 * torch.randn(4, 3, 6, 6)
    graph = to_nir(model, x)
    assert {source for source, target in graph.edges if target == "second"} == {"conv", "first"}
    check = compare(model, x, nir_runner(graph, num_steps=3, dt=DT)(x), executor="nirtorch")
    check.require()


def test_the_runner_draws_no_random_numbers():
    graph = to_nir(network("foreign"), images())
    before = torch.get_rng_state()
    nir_runner(graph, num_steps=3, dt=DT)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("names", [("input", "act"), ("conv", "output"), ("a_b", "a.b")])
def test_names_that_nir_has_for_others_are_refused(names):
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Module()
            for name, module in zip(names, (nn.Conv2d(3, 4, 3), nn.ReLU()), strict=True):
                parent, _, last = name.rpartition(".")
                self.get_submodule(parent).add_module(last, module)
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            for name in names:
                x = self.get_submodule(name)(x)
            return self.fc(x.mean((2, 3)))

    with pytest.raises(UserError, match="rename the module"):
        to_nir(sb.spikify(Named(), num_steps=2).eval(), images())


def test_a_norm_by_the_statistics_of_its_batch():
    layers = (
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3600, 3),
    )
    with pytest.raises(UserError, match="1: it normalises by the statistics of its batch"):
        to_nir(sb.spikify(nn.Sequential(*layers), num_steps=2).eval(), images())

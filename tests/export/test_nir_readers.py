"""What libraries make of a NIR file: our rules beside the libraries themselves, and what is written for each."""

import functools
import json

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.export import writing
from shortback.export.executors import nir_runner
from shortback.export.nir import to_nir
from shortback.export.nir_readers import usual_dt
from shortback.export.writing import write
from tests.export.networks import fires

nir = pytest.importorskip("nir")

NUM_STEPS = 3
LIF, IF = functools.partial(sb.LIF, decay=0.7), functools.partial(sb.IF)
LEAKY_INPUT = functools.partial(sb.LIF, decay=0.25, decay_input=True, threshold=0.6)
FIRES_ABOVE = functools.partial(sb.LIF, decay=0.5, fires_above=True)


class Skips(nn.Module):
    """All that Norse reads: poolings, a skip without layers of its own, a readout without bias."""

    def __init__(self, *, skip=None):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.conv, self.norm, self.act = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU()
        self.skip = skip or nn.Identity()
        self.pool, self.fc = nn.AvgPool2d(2), nn.Linear(6 * 3 * 3, 5, bias=False)

    def forward(self, x):
        x = self.stem(x)
        x = self.act(self.norm(self.conv(x)) + self.skip(x))
        return self.fc(self.pool(x).flatten(1))


def network(neuron=LIF, **settings):
    torch.manual_seed(0)
    return fires(sb.spikify(Skips(**settings), num_steps=NUM_STEPS, neuron=neuron), 12)


def images(count=4):
    return torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def outputs_of(theirs, x, *, is_batch=True):
    """What a library gives at each step, `[T, N, K]`; some have no axis for the batch, and states of their own."""
    by_image = []
    for frame in [x] if is_batch else x:
        state, outputs = None, []
        sb.reset_states(theirs)
        for _ in range(NUM_STEPS):
            y, state = theirs(frame, state)
            outputs.append(y)
        by_image.append(torch.stack(outputs))
    return by_image[0] if is_batch else torch.stack(by_image, 1)


def in_spikingjelly(graph, x):
    library = pytest.importorskip("spikingjelly.activation_based.nir_exchange.from_nir")
    return outputs_of(library.import_from_nir(graph), x)


def in_snntorch(graph, x):
    library = pytest.importorskip("snntorch.import_nir")
    return outputs_of(library.import_from_nir(graph), x, is_batch=False)


def in_norse(graph, x):
    library = pytest.importorskip("norse.torch")
    with pytest.warns(DeprecationWarning, match=r"nirtorch\.load"):
        theirs = library.from_nir(graph)
    return outputs_of(theirs, x, is_batch=False)


LIBRARIES = {"spikingjelly": in_spikingjelly, "snntorch": in_snntorch, "norse": in_norse}


@pytest.mark.parametrize("neuron", [LIF, IF, LEAKY_INPUT, FIRES_ABOVE], ids=["lif", "if", "decay_input", "fires_above"])
@pytest.mark.parametrize("reader", LIBRARIES)
def test_a_file_for_a_library_is_right_in_it(reader, neuron, tmp_path, caplog, capsys):
    model, x, file = network(neuron), images(), tmp_path / "net.nir"
    check = write(model, x, file, to="nir", importer=reader)
    assert check.flipped == 0
    assert "with the neurons of" in check.executor
    theirs = LIBRARIES[reader](nir.read(file), x)
    with torch.no_grad():
        torch.testing.assert_close(theirs.mean(0), model(x), rtol=1e-4, atol=1e-5)
    assert not caplog.records  # Norse says there what it does not heed
    text = (tmp_path / "net.nir.md").read_text()
    assert f"{NUM_STEPS} steps of {usual_dt(reader):g} s" in text
    assert "It is written for" in text
    assert ("fire at their threshold too" in text) == (reader == "spikingjelly")
    content = json.loads((tmp_path / "net.nir.json").read_text())
    assert (content["written_for"], content["dt"]) == (reader, usual_dt(reader))


@pytest.mark.parametrize(
    ("reader", "written_for", "neuron"),
    [
        ("norse", "any", LIF),  # it takes r for 1
        ("norse", "any", IF),
        ("snntorch", "any", LEAKY_INPUT),  # it moves the factor to the threshold
        ("spikingjelly", "spikingjelly", LEAKY_INPUT),
    ],
)
def test_the_rules_are_those_of_the_library(reader, written_for, neuron, capsys, caplog):
    """Of files that were not written for it too, which it reads otherwise than NIR has it."""
    model, x = network(neuron), images()
    graph = to_nir(model, x, importer=written_for, dt=usual_dt(reader))
    _average_as_convolution(graph)
    ours = nir_runner(graph, num_steps=NUM_STEPS, dt=usual_dt(reader), reader=reader)(x)
    theirs = LIBRARIES[reader](graph, x)
    torch.testing.assert_close(ours.outputs, theirs, rtol=1e-4, atol=1e-5)
    if (reader, neuron) == ("norse", LIF):  # an IF of r = 1 / dt is the same by both
        right = nir_runner(graph, num_steps=NUM_STEPS, dt=usual_dt(reader))(x)
        assert (right.outputs - theirs).abs().max() > 0.01


def _average_as_convolution(graph):
    """Norse has no average pooling: put what is written for it in its place."""
    graph.nodes["pool"] = to_nir(network(), images(), importer="norse").nodes["pool"]


def test_a_file_that_is_wrong_in_a_library_is_not_written(tmp_path, monkeypatch):
    """One by NIR's equations, of which Norse makes other neurons."""
    monkeypatch.setattr(writing, "to_nir", lambda model, sample, importer: to_nir(model, sample, dt=1e-3))
    with pytest.raises(
        ValueError, match=r"not written: .* does not fire as it did: nirtorch with the neurons of Norse"
    ):
        write(network(), images(), tmp_path / "net.nir", to="nir", importer="norse")
    assert not list(tmp_path.iterdir())


def test_skips_with_layers_are_refused_for_norse(tmp_path):
    model = network(skip=nn.Conv2d(6, 6, 1))
    write(model, images(), tmp_path / "net.nir", to="nir", importer="snntorch")
    with pytest.raises(ValueError, match=r"act: importer='norse': Norse runs this before skip, whose output it adds"):
        write(model, images(), tmp_path / "other.nir", to="nir", importer="norse")


def test_that_refusal_is_needed(monkeypatch):
    monkeypatch.setattr("shortback.export.nir.check_order", lambda edges, start: None)
    x = images()
    theirs = in_norse(to_nir(network(skip=nn.Conv2d(6, 6, 1)), x, importer="norse"), x)
    assert theirs.shape == (NUM_STEPS, len(x), 6, 6, 6)  # of the skip, which it runs last


def test_what_a_reader_does_not_read_is_said():
    model, x = network(), images()
    for reader in ("snntorch", "spikingjelly"):
        with pytest.raises(ValueError, match=r"reads every file with dt=0\.0001; leave dt out"):
            to_nir(model, x, importer=reader, dt=1e-3)
    integrating = to_nir(network(IF), x)
    with pytest.raises(ValueError, match=r"snnTorch reads an IF as a leaky neuron with a decay of 0\.9"):
        nir_runner(integrating, num_steps=NUM_STEPS, dt=1e-4, reader="snntorch")
    scaled = to_nir(model, x, importer="norse", dt=1e-4)
    next(node for node in scaled.nodes.values() if isinstance(node, nir.LIF)).r[:] = 1.5
    with pytest.raises(ValueError, match=r"SpikingJelly reads no LIF with r=1\.5"):
        nir_runner(scaled, num_steps=NUM_STEPS, dt=1e-4, reader="spikingjelly")
    assert to_nir(model, x, importer="norse").metadata["dt"] == 1e-3

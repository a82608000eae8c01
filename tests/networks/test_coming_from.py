"""The tables of docs/coming-from: both sides of a row are evaluated, and are the same function and gradient."""

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import shortback as sb
from shortback import losses, surrogates

DOCS = Path(__file__).parents[2] / "docs" / "coming-from"
T, N, K = 6, 5, 7
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries


def rows(library, section):
    """The two expressions of each row of a section's table."""
    text = (DOCS / f"{library}.md").read_text()
    (table,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", table, flags=re.MULTILINE)
    assert len(found) == len(re.findall(r"^\| ", table, flags=re.MULTILINE)) - 1  # all but the heading
    return found


def cases(section):
    libraries = ["spikingjelly", "snntorch", "norse"]
    there = [library for library in libraries if f"## {section}\n" in (DOCS / f"{library}.md").read_text()]
    found = {library: rows(library, section) for library in there}
    return [pytest.param(name, *row, id=f"{name}-{i}") for name, table in found.items() for i, row in enumerate(table)]


def names(library):
    """What expressions of a page may use."""
    space = {"sb": sb, "surrogates": surrogates, "losses": losses, "torch": torch, "F": F, "T": T}
    space |= {"tau": 1.6, "beta": 0.7, "rate": 0.3, "alpha": 3.0, "slope": 5.0}
    pytest.importorskip(library)
    if library == "spikingjelly":
        from spikingjelly.activation_based import neuron, surrogate

        space |= {"neuron": neuron, "surrogate": surrogate}
    elif library == "snntorch":
        import snntorch
        from snntorch import functional, surrogate

        space |= {"snn": snntorch, "surrogate": surrogate, "functional": functional}
    else:
        import norse.torch

        space |= {"norse": norse.torch}
    return space


def run_theirs(library, neuron, x):
    """`[T, N, ...]` through a neuron of theirs."""
    if library == "spikingjelly":
        neuron.step_mode = "m"
        return neuron(x)
    state = neuron.init_leaky() if library == "snntorch" else None
    spikes = []
    for current in x:
        spike, state = neuron(current, state)
        spikes.append(spike)
    return torch.stack(spikes)


def gradient(function, x):
    x = x.clone().requires_grad_()
    out = function(x)
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).reshape(out.shape)
    (out * weights).sum().backward()
    return out.detach(), x.grad


NEURONS = [pytest.param("reference", *case.values, id=case.id) for case in cases("Neurons")]
# Kernels of every kind are compared with the reference in tests/ops; here, one of each library.
NEURONS += [
    pytest.param("compiled", *next(case.values for case in cases("Neurons") if case.values[0] == library))
    for library in ("spikingjelly", "snntorch", "norse")
]


@pytest.mark.parametrize(("backend", "library", "theirs", "ours"), NEURONS)
def test_neurons(backend, library, theirs, ours):
    space = names(library)
    torch.manual_seed(0)
    x = (1.1 if library == "snntorch" else 2.5) * torch.rand(T, N, 40)  # below two thresholds, as its page says
    other, mine = eval(theirs, space), eval(ours, space)
    mine.backend = backend
    expected, their_gradient = gradient(lambda x: run_theirs(library, other, x), x)
    found, our_gradient = gradient(lambda x: mine(x.flatten(0, 1)).unflatten(0, (T, N)), x)
    assert 0.05 < expected.mean() < 0.95
    assert torch.equal(found, expected)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-6)
    learned = [(p, q) for p, q in zip(other.parameters(), mine.parameters(), strict=False)]
    for p, q in learned:  # the decay is the sigmoid of ours, and 1 minus that of theirs
        torch.testing.assert_close(q.grad, -p.grad.reshape(q.grad.shape), rtol=1e-3, atol=1e-4)
    assert ("Parametric" in theirs) == bool(learned)


@pytest.mark.parametrize(("library", "theirs", "ours"), cases("Surrogates"))
def test_surrogates(library, theirs, ours):
    space = names(library)
    z = torch.linspace(-2, 2, 401) + 1e-4
    mine = eval(ours, space)
    if library == "norse":
        from norse.torch.functional.threshold import threshold

        method, alpha = eval(theirs, space)
        _, expected = gradient(lambda z: threshold(z, method, torch.tensor(alpha)), z)
    else:
        fires = eval(theirs, space)
        _, expected = gradient(fires, z)
    expected = expected / torch.linspace(-1, 1, 401)
    keep = torch.linspace(-1, 1, 401).abs() > 1e-3
    torch.testing.assert_close(mine.gradient(z)[keep], expected[keep], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("library", "theirs", "ours"), cases("Losses"))
def test_losses(library, theirs, ours):
    space = names(library)
    torch.manual_seed(0)
    seq, y = torch.randn(T, N, K), torch.randint(0, K, (N,))
    found = []
    for expression in (theirs, ours):
        leaf = seq.clone().requires_grad_()
        loss = eval(expression, {**space, "seq": leaf, "spk": leaf, "y": y})
        loss.sum().backward()
        found.append((loss.detach().reshape(()), leaf.grad))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)

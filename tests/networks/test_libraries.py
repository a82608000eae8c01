"""`attach` in one line on the networks of other libraries, and what is left of it after `strip`."""

import copy

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.data.bundled import load_bundled
from shortback.data.transforms import normalize
from tests.networks.zoo import CASES

NUM_IMAGES = 8
NUM_STEPS = 6

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # what the libraries warn of is theirs


@pytest.fixture(scope="module")
def images():
    data = load_bundled()
    x = torch.stack([data.train.image(i) for i in range(NUM_IMAGES)])
    return normalize(x, mean=data.mean, std=data.std), data.train.labels[:NUM_IMAGES]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def make(case):
    torch.manual_seed(0)
    net = case.make()
    for module in net.modules():  # draws, which two runs that are compared would have to share
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    return [tensor for part in output for tensor in tensors(part)] if isinstance(output, tuple | list) else []


def test_it_learns_through_a_branch_alone(case, images):
    x, y = case.prepare(images[0]), images[1]
    net = sb.attach(make(case), sample=x, **case.settings)
    assert len(net.places) >= case.places
    optimizer = torch.optim.Adam(net.parameters(), lr=case.lr)
    losses = []
    for step in range(NUM_STEPS):
        sb.reset_states(net)
        out = net.train()(x)
        assert out.logits.shape == (NUM_IMAGES, 10)
        losses.append(nn.functional.cross_entropy(out.branches[net.places[-1]], y))
        optimizer.zero_grad()
        losses[-1].backward()
        if step == 0:
            first = next(p for p in net.model.parameters() if p.ndim > 1)
            assert first.grad is not None
            assert first.grad.abs().sum() > 0
        optimizer.step()
    assert min(losses[-2:]) < losses[0]


def test_the_whole_loss_falls(case, images):
    x, y = case.prepare(images[0]), images[1]
    net = sb.attach(make(case), sample=x, **case.settings)
    optimizer = torch.optim.Adam(net.parameters(), lr=case.lr)
    losses = []
    for step in range(NUM_STEPS):
        sb.reset_states(net)
        terms = sb.shortcut_loss(net.train()(x), y, coefficient=1 - step / NUM_STEPS)
        losses.append(terms.main.item())
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    assert min(losses[-2:]) < losses[0]


def test_strip_gives_the_very_network_back(case, images):
    x = case.prepare(images[0])
    untouched, net = make(case), make(case)
    keys, kind, num_hooks = list(net.state_dict()), type(net), hooks(net)
    with_branches = sb.attach(net, sample=x, **case.settings)
    sb.reset_states(net)
    with_branches(x)  # a forward in training, which moves the statistics of batch norm
    assert sb.strip(with_branches) is net
    assert (list(net.state_dict()), type(net), hooks(net)) == (keys, kind, num_hooks)
    untouched(x)
    for a, b in ((net, untouched), (net.eval(), untouched.eval())):
        sb.reset_states(a)
        sb.reset_states(b)
        with torch.no_grad():
            returned, expected = tensors(a(x)), tensors(b(x))
        assert len(returned) == len(expected)
        assert all(torch.equal(*pair) for pair in zip(returned, expected, strict=True))


def hooks(net):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())


def test_a_copy_has_branches_of_its_own(case, images):
    x = case.prepare(images[0])
    net = sb.attach(make(case), sample=x, **case.settings)
    sb.reset_states(net)
    copied = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    sb.reset_states(copied)
    out = copied(x)
    assert list(out.branches) == list(net.places)
    assert out.branches[net.places[-1]].abs().sum() > 0
    sb.strip(net)
    assert copied(x).branches


def test_a_diagnosis_sees_every_neuron_and_leaves_all_as_it_was(case, images):
    x, y = case.prepare(images[0]), images[1]
    net = sb.attach(make(case), sample=x, **case.settings)
    sb.reset_states(net)
    before = copy.deepcopy(net.state_dict())
    report = sb.diagnose(net, x, y, suggest=False)
    assert report.layers
    assert report.layers[0].branch_share > 0
    assert len(report.neurons) >= case.neurons
    for neuron in report.neurons:
        assert 0 <= neuron.dead <= 1
        assert len(neuron.gradient_by_step) == case.steps
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

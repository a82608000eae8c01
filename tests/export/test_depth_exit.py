"""Exits in depth beside runs by hand, image by image."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.export.depth_exit import DepthExit, by_depth
from shortback.export.exits import NEVER, exit_curve
from shortback.export.operations import count_operations
from tests.export.networks import images, network


def branched(name, at):
    net = sb.attach(network(name), at=at, sample=images(2))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for head in net.heads:
            head.weight.normal_(0, 6, generator=generator)
    return net.eval()


@pytest.fixture(scope="module", params=["resnet20", "foreign"])
def net(request):
    return branched(request.param, "stages" if request.param == "resnet20" else ["block1", "block2"])


@torch.no_grad()
def by_hand(net, x):
    """Logits of every exit of one image, `[1, K]` each: those that a training step would see, in `eval()`."""
    net.training = True  # not the network within, whose norms stay as they are
    outputs = net(x)
    net.training = False
    return [*outputs.branches.values(), outputs.logits]


@pytest.mark.parametrize("num_steps", [None, 3])
def test_images_leave_as_by_hand(net, num_steps):
    x, temperatures = images(12, num_steps=num_steps), (2.0, 1.0, 0.5)
    first = by_hand(net, x)[0]
    threshold = float((first / 2).softmax(1).amax(1).median()) + 1e-4  # half of them leave at the first branch
    logits, exits = DepthExit(net, threshold=threshold, temperatures=temperatures)(x)
    assert len(set(exits.tolist())) > 1
    for n in range(12):
        outputs = by_hand(net, x[..., n : n + 1, :, :, :])
        sure = [float((y / t).softmax(1).max()) >= threshold for y, t in zip(outputs, temperatures, strict=True)]
        index = sure.index(True) if any(sure) else 2
        assert exits[n] == index
        torch.testing.assert_close(logits[n], outputs[index][0], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_without_a_threshold_it_is_the_network(net):
    x = images(5)
    logits, exits = DepthExit(net, threshold=NEVER)(x)
    assert torch.equal(logits, net.model(x))
    assert exits.tolist() == [2] * 5
    _, exits = DepthExit(net, threshold=1e-6)(x)
    assert exits.tolist() == [0] * 5


def test_layers_that_are_left_out_are_not_run(net):
    x = images(6)
    threshold = float(by_hand(net, x)[0].softmax(1).amax(1).median()) + 1e-4
    called = []
    last = [m for m in net.model.modules() if isinstance(m, torch.nn.Linear)][-1]
    handle = last.register_forward_hook(lambda module, inputs, output: called.append(len(output)))
    DepthExit(net, threshold=1e-6)(x)
    assert called == []
    _, exits = DepthExit(net, threshold=threshold)(x)
    assert called == [3 * int((exits == 2).sum())]
    handle.remove()


def test_the_curve_is_what_a_run_gives(net):
    x = images(12)
    labels = by_hand(net, x)[-1].argmax(1)
    labels[::3] = (labels[::3] + 1) % 10
    found = by_depth(net, [(x[:5], labels[:5]), (x[5:], labels[5:])])
    for point in exit_curve(found, (1.0, 1.0, 1.0), thresholds=(0.4, 0.8, 0.99)):
        logits, exits = DepthExit(net, threshold=point.threshold)(x)
        assert point.mean == pytest.approx(float(torch.tensor(found.at)[exits].double().mean()))
        assert point.accuracy == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_operations_are_those_of_each_image(net):
    """Of the whole network as `count_operations` counts them, and those of the heads; layers are all that it has."""
    x = images(3)
    found = by_depth(net, [(x, torch.zeros(3, dtype=torch.int64))])
    assert found.at[-1] == len(count_operations(net.model, [x]).layers)
    assert sorted(found.at) == list(found.at)
    for n in range(3):
        alone = count_operations(net.model, [x[n : n + 1]])
        macs = found.macs[:, n].sum() - sum(
            10 * int((features != 0).sum()) for features in _features(net, x[n : n + 1])
        )
        assert float(macs) == pytest.approx(alone.macs)
        assert float(found.acs[:, n].sum()) == pytest.approx(alone.acs)


@torch.no_grad()
def test_all_layers_of_a_head_are_counted():
    """By hand, of the nonzero inputs of two layers; no dropout, and `at` counts the layers of the network alone."""

    def head(features, classes):
        return nn.Sequential(nn.Linear(features, 5), nn.ReLU(), nn.Dropout(), nn.Linear(5, classes))

    net = sb.attach(network("foreign"), at=["block1", "block2"], sample=images(2), head=head)
    x, y = images(3), torch.zeros(3, dtype=torch.int64)
    found = by_depth(net, [(x, y)])
    plain = by_depth(sb.attach(network("foreign"), at=["block1", "block2"], sample=images(2)), [(x, y)])
    assert found.at == plain.at
    net.eval()
    for index, features in enumerate(_features(net, x)):
        inputs, inner = (features != 0).sum(1), (net.heads[index][:2](features) != 0).sum(1)
        added = found.macs[index] - plain.macs[index]
        assert added.tolist() == (5 * inputs + 10 * inner - 10 * inputs).tolist()
        torch.testing.assert_close(found.logits[index], net.heads[index](features))
    assert all(not module._forward_hooks for module in net.heads.modules())


class Prototypes(nn.Module):
    """A head that compares features with those a layer computes of ten prototypes, or of one vector."""

    def __init__(self, features, classes):
        super().__init__()
        self.prototypes, self.shift = nn.Parameter(torch.randn(classes, 3)), nn.Parameter(torch.randn(3))
        self.before, self.of_prototypes = nn.Linear(features, 6), nn.Linear(3, 6)

    def forward(self, x):
        return self.before(x) @ (self.of_prototypes(self.prototypes) + self.of_prototypes(self.shift)).T


@torch.no_grad()
def test_layers_of_a_head_that_take_no_images_are_left_out():
    """By hand: of a head's layers, the one whose rows are images has 6 outputs; a `Linear` has 10."""
    net = sb.attach(network("foreign"), at=["block1", "block2"], sample=images(2), head=Prototypes)
    x, y = images(3), torch.zeros(3, dtype=torch.int64)
    found = by_depth(net, [(x, y)])
    plain = by_depth(sb.attach(network("foreign"), at=["block1", "block2"], sample=images(2)), [(x, y)])
    net.eval()
    for index, features in enumerate(_features(net, x)):
        added = found.macs[index] - plain.macs[index]
        assert added.tolist() == (-4 * (features != 0).sum(1)).tolist()
        torch.testing.assert_close(found.logits[index], net.heads[index](features))


def _features(net, x):
    seen = []
    handles = [head.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0])) for head in net.heads]
    by_hand(net, x)
    for handle in handles:
        handle.remove()
    return seen


def test_the_network_is_left_as_it_was(net):
    hooks = [len(module._forward_hooks) for module in net.modules()]
    DepthExit(net, threshold=0.5)(images(2))
    by_depth(net, [(images(2), torch.zeros(2, dtype=torch.int64))])
    assert [len(module._forward_hooks) for module in net.modules()] == hooks


def test_what_is_wrong_is_said(net):
    with pytest.raises(ValueError, match="must be a confidence, above 0"):
        DepthExit(net, threshold=0)
    with pytest.raises(ValueError, match="2 temperatures for 3 exits, the output among them"):
        DepthExit(net, threshold=0.5, temperatures=(1.0, 1.0))
    with pytest.raises(ValueError, match="no image"):
        by_depth(net, [])
    with pytest.raises(ValueError, match="this is SpikingNetwork"):
        DepthExit(net.model, threshold=0.5)
    stripped = branched("resnet20", "stages")
    sb.strip(stripped)
    with pytest.raises(ValueError, match="stripped"):
        DepthExit(stripped, threshold=0.5)


@pytest.mark.parametrize("count", [1, 2, 6])
def test_a_branch_that_the_network_runs_past(count):
    """Within a block, of which the skip still has all images: whatever adds up, or not, by chance of sizes."""
    net = branched("resnet20", ["layer1.1.neuron1", "layer2"])
    x = images(count)
    sure = by_hand(net, x)[0].softmax(1).amax(1)
    exits = DepthExit(net, threshold=float(sure.max()))
    if count == 1:  # it leaves, and nothing is to be added to it
        assert exits(x)[1].tolist() == [0]
    else:
        with pytest.raises(ValueError, match=r"cannot leave at layer1\.1\.neuron1: some of the network runs past it"):
            exits(x)


def test_a_branch_before_the_steps_begin():
    net = branched("resnet20", ["stem.norm1", "layer2"])
    with pytest.raises(ValueError, match=r"no image can leave at stem\.norm1, which does not run at every step"):
        DepthExit(net, threshold=0.5)(images(2))


def test_heads_of_another_dtype_and_empty_batches():
    net = branched("foreign", ["block1"]).bfloat16()
    x = images(3).bfloat16()
    assert DepthExit(net, threshold=NEVER)(x)[0].shape == (3, 10)
    labels = torch.tensor([0, 1, 2])
    assert by_depth(net, [(x[:0], labels[:0]), (x, labels)]).logits.shape == (2, 3, 10)


def test_norms_by_the_statistics_of_the_images_that_are_left_are_refused():
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU()
    model = sb.spikify(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)), num_steps=2)
    net = sb.attach(model, at=["1"], sample=images(2))
    with pytest.raises(ValueError, match=r"model\.network\.3 normalises"):
        DepthExit(net, threshold=0.5)

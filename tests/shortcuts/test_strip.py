"""The proof that nothing is left behind."""

import copy

import pytest
import torch
from torch import nn

import shortback as sb


def train(net, batch, *, steps=3):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        sb.shortcut_loss(net(batch[0]), batch[1], coefficient=1 - step / steps).total.backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["resnet20", "vgg11"])
def test_the_stripped_network_is_the_one_that_never_had_branches(name, make_network, batch):
    settings = {} if name == "resnet20" else {"width": 0.125}
    if name == "vgg11":
        batch = nn.functional.interpolate(batch[0], 32), batch[1]
    x, _ = batch
    model = make_network(name, **settings)
    keys, parameters = list(model.state_dict()), [id(p) for p in model.parameters()]
    net = sb.attach(model, at="blocks", sample=x)
    train(net, batch)
    with_branches = net.eval()(x).logits
    plain = sb.strip(net)

    assert plain is model
    assert list(plain.state_dict()) == keys
    assert [id(p) for p in plain.parameters()] == parameters
    for module in plain.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
    never = make_network(name, seed=1, **settings)
    never.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(x), never.eval()(x))
    assert torch.equal(plain(x), with_branches)


def test_it_can_be_attached_again(make_network, batch):
    model = make_network()
    sb.strip(sb.attach(model, at="blocks", sample=batch[0]))
    assert len(sb.attach(model, at="stages", sample=batch[0]).places) == 2


def test_what_cannot_be_stripped(make_network, batch):
    net = sb.attach(make_network(), at="blocks", sample=batch[0])
    with pytest.raises(ValueError, match="_orig_mod"):
        sb.strip(torch.compile(net))
    sb.strip(net)
    with pytest.raises(ValueError, match="stripped before"):
        sb.strip(net)
    with pytest.raises(RuntimeError, match=r"what strip\(\) returned"):
        net(batch[0])


def blocks():
    convs = [nn.Sequential(nn.Conv2d(1 if not i else 4, 4, 1, stride=2), nn.ReLU()) for i in range(3)]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


def is_plain(model):
    return not any(m._forward_hooks or "_conv_forward" in vars(m) for m in model.modules())


def test_a_block_that_was_copied_since_is_stripped_too(batch):
    model = blocks()
    net = sb.attach(model, at="blocks", sample=batch[0])
    model[2] = copy.deepcopy(model[1])
    assert is_plain(sb.strip(net))
    assert sb.attach(model, at="blocks", sample=batch[0]).places == ("0", "1")


def test_a_copy_of_the_network_alone_can_be_attached_to(batch):
    net = sb.attach(blocks(), at="blocks", sample=batch[0])
    copied = copy.deepcopy(net.model)
    again = sb.attach(copied, at=["1"], sample=batch[0])
    assert list(again(batch[0]).branches) == ["1"]
    assert is_plain(sb.strip(again))
    assert list(net(batch[0]).branches) == ["0", "1"]  # whose taps are there still
    assert is_plain(sb.strip(net))


def test_taps_of_copies_and_of_what_was_saved_are_kept(batch, tmp_path):
    net = sb.attach(blocks(), at="blocks", sample=batch[0])
    torch.save(net, tmp_path / "net.pt")
    for other in (copy.deepcopy(net), torch.load(tmp_path / "net.pt", weights_only=False)):
        with pytest.raises(ValueError, match="has branches already"):
            sb.attach(other.model, sample=batch[0])
        assert torch.equal(other(batch[0]).branches["0"], net(batch[0]).branches["0"])
        assert is_plain(sb.strip(other))

"""The proof that nothing is left behind."""

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

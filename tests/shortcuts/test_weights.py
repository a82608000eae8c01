"""Weights with branches and without go into each other, and what is left out is said."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import shortback as sb

HEADS = ["heads.0.bias", "heads.0.weight", "heads.1.bias", "heads.1.weight"]


@pytest.fixture
def branched(make_network, batch):
    return sb.attach(make_network(seed=1), at="stages", sample=batch[0])


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_branches_are_left_out_of_a_network_without(make_network, branched, caplog):
    net = make_network(seed=0)
    left_out = sb.load_weights(net, branched.state_dict())
    assert left_out == HEADS
    assert "left out of the weights: heads.0.bias" in caplog.text
    assert same(net, branched.model)


def test_heads_stay_where_the_weights_have_none(make_network, branched, batch, caplog):
    other = sb.attach(make_network(seed=0), at="stages", sample=batch[0])
    heads = [p.clone() for p in other.heads.parameters()]
    for load in (sb.load_weights, lambda net, weights: net.load_state_dict(weights)):
        load(other, branched.model.state_dict())
        assert same(other.model, branched.model)
        assert all(torch.equal(*pair) for pair in zip(heads, other.heads.parameters(), strict=True))
        assert "were not loaded" in caplog.text
        caplog.clear()


def test_branches_into_branches_at_as_many_places_and_at_others(make_network, branched, batch):
    other = sb.attach(make_network(seed=0), at="stages", sample=batch[0])
    assert sb.load_weights(other, branched.state_dict()) == []
    assert same(other, branched)
    one = sb.attach(make_network(seed=0), at=["layer1"], sample=batch[0])
    assert sb.load_weights(one, branched.state_dict()) == [
        "heads.0.bias",
        "heads.0.weight",
        "heads.1.bias",
        "heads.1.weight",
    ]
    assert same(one.model, branched.model)


def test_wrappers_and_files(make_network, branched, tmp_path):
    weights = branched.state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "a.pt")
    save_file(
        {f"_orig_mod.{name}": value for name, value in branched.model.state_dict().items()}, tmp_path / "b.safetensors"
    )
    for source in (tmp_path / "a.pt", str(tmp_path / "b.safetensors"), branched.model.network.state_dict()):
        net = make_network(seed=0)
        sb.load_weights(net, source)
        assert same(net, branched.model)
    inner = make_network(seed=0).network
    sb.load_weights(inner, weights)
    assert same(inner, branched.model.network)


def test_other_weights_are_refused_by_name_and_nothing_is_loaded(make_network, branched, tmp_path):
    net = make_network(seed=0, width=0.5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=r"conv1\.weight \[4, 1, 3, 3\] in the state dict, \[8, 1, 3, 3\] now"):
        sb.load_weights(net, branched.state_dict())
    weights = branched.model.state_dict()
    weights["odd"] = weights.pop("network.fc.bias")
    with pytest.raises(ValueError, match=r"network lacks: odd\n  .* state dict lacks: network\.fc\.bias"):
        sb.load_weights(make_network(), weights)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    (tmp_path / "c.pt").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"c\.pt: no weights can be read"):
        sb.load_weights(net, tmp_path / "c.pt")


def test_those_of_an_average(make_network):
    model, other = make_network(), make_network()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    with torch.no_grad():
        next(other.parameters()).zero_()
    assert sb.load_weights(other, averaged.state_dict()) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


class Wraps(nn.Module):
    """Has a child whose name is that of a wrapper."""

    def __init__(self):
        super().__init__()
        self.module = nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(2)), nn.Linear(6, 5))

    def forward(self, x):
        return self.module(x)


def test_a_child_that_is_called_as_a_wrapper_is():
    x, source = torch.randn(4, 6), sb.attach(Wraps(), at=["module.0"], sample=torch.randn(4, 6))
    with_wrapper = {f"module.{name}": value for name, value in source.state_dict().items()}
    for weights in (source.state_dict(), source.model.state_dict(), with_wrapper):
        net, plain = sb.attach(Wraps(), at=["module.0"], sample=x), Wraps()
        sb.load_weights(net, weights)
        sb.load_weights(plain, weights)
        assert same(net.model, source.model)
        assert same(plain, source.model)


def test_a_part_that_is_compiled_in_either():
    x, plain = torch.randn(4, 6), Wraps()

    def compiled():
        net = sb.attach(Wraps(), at=["module.0"], sample=x)
        net.model.module[1] = torch.compile(net.model.module[1])
        return net

    source = compiled()
    for net, weights in ((compiled(), source.state_dict()), (plain, source.state_dict())):
        sb.load_weights(net, weights)
        values = (net.model if net is not plain else net).state_dict().values()
        assert all(torch.equal(*pair) for pair in zip(values, source.model.state_dict().values(), strict=True))
    other = compiled()
    sb.load_weights(other, plain.state_dict())
    assert same(other.model, source.model)


def test_of_many_names_that_do_not_fit_five_are_told():
    net = nn.Sequential(*(nn.Linear(2, 2) for _ in range(6)))
    with pytest.raises(ValueError, match=r"weights that the network lacks: b0, b1, b2, b3, b4 and 4 more\n") as caught:
        sb.load_weights(net, {f"b{index}": torch.zeros(1) for index in range(9)})
    assert str(caught.value).endswith("0.weight, 0.bias, 1.weight, 1.bias, 2.weight and 7 more")


class Membrane(nn.Module):
    """A neuron of a library, which keeps its membrane in a buffer of the size of the last batch."""

    def __init__(self):
        super().__init__()
        self.register_buffer("v", torch.zeros(0))

    def reset_states(self):
        self.v = torch.zeros(0)

    def forward(self, x):
        self.v = x.detach()
        return (x > 1).float()


def test_what_neurons_of_a_library_remember_is_no_weight():
    neuron = type("StatefulLayer", (Membrane,), {"__module__": "sinabs.layers"})
    net = nn.Sequential(nn.Linear(3, 4), neuron())
    fresh = nn.Sequential(nn.Linear(3, 4), neuron())
    net(torch.randn(8, 3))
    assert sb.load_weights(fresh, net.state_dict()) == []
    assert torch.equal(fresh[0].weight, net[0].weight)
    fresh(torch.randn(5, 3))
    assert sb.load_weights(fresh, {name: net.state_dict()[name] for name in ("0.weight", "0.bias")}) == []
    with pytest.raises(ValueError, match=r"lacks: 0\.bias"):
        sb.load_weights(fresh, {"0.weight": net[0].weight})

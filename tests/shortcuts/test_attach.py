"""Branches are there in training, and leave the network they are on alone."""

import copy

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.outputs import Outputs


def test_outputs_in_training_and_evaluation(make_network, batch):
    x, _ = batch
    net = sb.attach(make_network(), at="blocks", sample=x)
    out = net(x)
    assert isinstance(out, Outputs)
    assert out.logits.shape == (8, 10)
    assert list(out.branches) == [f"layer{i}.{j}" for i in (1, 2, 3) for j in (0, 1, 2)][:-1]
    assert all(logits.shape == (8, 10) for logits in out.branches.values())
    assert net.eval()(x).branches == {}
    assert list(sb.attach(make_network(), at="stages", sample=x)(x).branches) == ["layer1", "layer2"]


def test_a_branch_is_what_the_formula_says(make_network, batch):
    x, _ = batch
    model = make_network(num_steps=3)
    net = sb.attach(model, at=["layer2"], sample=x)
    seen = []
    model.network.layer2.register_forward_hook(lambda m, i, o: seen.append(o))
    branch = net(x).branches["layer2"]
    spikes = seen[0].unflatten(0, (3, 8))  # [T, N, C, H, W]
    head = net.heads[0]
    expected = spikes.mean(0).mean((-2, -1)) @ head.weight.T + head.bias
    torch.testing.assert_close(branch, expected)


def test_attaching_draws_no_random_numbers_and_changes_nothing(make_network, batch):
    x, _ = batch
    model = make_network()
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    sb.attach(model, at="blocks", sample=x)
    assert torch.equal(torch.get_rng_state(), random)
    assert modes == [m.training for m in model.modules()]
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_with_coefficient_zero_the_gradients_are_those_without_branches(make_network, batch):
    x, y = batch
    plain, model = make_network(), make_network()
    net = sb.attach(model, at="blocks", sample=x)
    nn.functional.cross_entropy(plain(x), y).backward()
    sb.shortcut_loss(net(x), y, coefficient=0.0).total.backward()
    for (name, a), b in zip(plain.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_gradients_reach_the_first_layer_through_a_branch_alone(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at=["layer1.0"], sample=x)
    nn.functional.cross_entropy(net(x).branches["layer1.0"], y).backward()
    first = next(net.model.parameters())
    assert first.grad.abs().sum() > 0
    assert net.model.network.layer3[0].conv1.weight.grad is None


def test_fifty_six_plain_layers_step_without_nan(make_network, batch):
    x, y = batch
    net = sb.attach(make_network("resnet56", residual="plain"), at="blocks", sample=x)
    assert len(net.places) == 26
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(3):
        terms = sb.shortcut_loss(net(x), y, coefficient=1 - step / 3)
        terms.total.backward()
        assert terms.total.isfinite()
        assert all(p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        optimizer.zero_grad()
    assert all(p.isfinite().all() for p in net.parameters())


def test_disabled_branches_are_not_computed(make_network, batch):
    net = sb.attach(make_network(), at="blocks", sample=batch[0])
    net.branches_enabled = False
    assert net.train()(batch[0]).branches == {}


def test_a_sequence_and_a_static_image_agree(make_network, batch):
    x, _ = batch
    net = sb.attach(make_network(num_steps=2, norm="none"), at="stages", sample=x)
    static, sequence = net(x), net(x.expand(2, *x.shape))
    for name, logits in static.branches.items():
        torch.testing.assert_close(logits, sequence.branches[name])


def test_a_deep_copy_has_taps_of_its_own(make_network, batch):
    x, _ = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    clone = copy.deepcopy(net)
    expected = net(x).branches
    sb.strip(net)
    for name, logits in clone(x).branches.items():
        assert torch.equal(logits, expected[name])


def test_a_spikified_network(batch):
    ann = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)),
    )
    net = sb.attach(sb.spikify(ann, num_steps=2), at="blocks", sample=batch[0])
    assert list(net(batch[0]).branches) == ["0"]


def test_a_network_without_time(batch):
    ann = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    out = sb.attach(ann, at=["1"], sample=batch[0])(batch[0])
    assert out.branches["1"].shape == (8, 10)


@pytest.mark.slow
def test_under_torch_compile(make_network, batch):
    x, y = batch
    eager, compiled = (sb.attach(make_network(), at=["layer1.0", "layer2.1"], sample=x) for _ in range(2))
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for stance, coefficient in (("default", 1.0), ("fail_on_recompile", 0.5)):
        with torch.compiler.set_stance(stance):
            losses = [sb.shortcut_loss(net(x), y, coefficient=coefficient).total for net in (eager, run)]
        torch.testing.assert_close(losses[0], losses[1])
        for loss in losses:
            loss.backward()
    for (name, a), b in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=lambda text, name=name: f"{name}: {text}")
    assert eager.heads[0].weight.grad.abs().sum() > 0


class Shared(nn.Module):
    """A module called twice, one never called, and one that returns no tensor."""

    def __init__(self):
        super().__init__()
        self.twice, self.never, self.fc = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1), nn.Linear(1, 10)
        self.nothing = Nothing()

    def forward(self, x):
        x = self.twice(self.twice(x))
        return self.fc(self.nothing(x)["x"].mean((2, 3)))


class Nothing(nn.Module):
    def forward(self, x):
        return {"x": x}


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (["twice"], "is called 2 times"),
        (["never"], "is not called"),
        (["nothing"], "returns dict; a branch needs a tensor"),
        (["twyce"], "the nearest are twice"),
        (["fc", "fc"], "named twice"),
        ([], "name at least one"),
        ("blocks", "has 0 blocks"),
    ],
)
def test_unsuitable_places_are_refused(batch, at, message):
    with pytest.raises(ValueError, match=message):
        sb.attach(Shared(), at=at, sample=batch[0])


def test_unsuitable_networks_are_refused(make_network, batch):
    x, _ = batch
    with pytest.raises(ValueError, match=r"attach first, then torch\.compile"):
        sb.attach(torch.compile(make_network()), at="blocks", sample=x)
    compiled_in_place = make_network()
    compiled_in_place.network.layer1.compile()
    with pytest.raises(ValueError, match=r"its module 'network.layer1' is compiled"):
        sb.attach(compiled_in_place, at="blocks", sample=x)
    with pytest.raises(ValueError, match=r"strip\(\) it first"):
        sb.attach(sb.attach(make_network(), at="blocks", sample=x), at="blocks", sample=x)


class Reads(nn.Module):
    """A linear map by step after a block, read in one of several ways."""

    def __init__(self, read, *, batch_first=False):
        super().__init__()
        torch.manual_seed(0)
        self.block, self.fc = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 8)
        self.read, self.axis = read, int(batch_first)

    def forward(self, x):
        return self.read(self.fc(self.block(torch.stack([x, 2 * x, x - 1], self.axis))))


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_makes_the_output_is_no_place(batch_first):
    x, axis = torch.randn(4, 6), int(batch_first)
    for read in (lambda o: o, lambda o: o.mean(axis), lambda o: o.sum(axis), lambda o: [*o.unbind(axis)]):
        net = Reads(read, batch_first=batch_first)
        with pytest.raises(ValueError, match=r"at='fc': the module makes the network's output.*leave it out"):
            sb.attach(net, at=["block", "fc"], sample=x)
        assert sb.attach(net, at=["block"], sample=x).places == ("block",)  # as many features as classes
    net = Reads(lambda o: o.relu().mean(axis), batch_first=batch_first)
    assert sb.attach(net, at=["block", "fc"], sample=x).places == ("block", "fc")


def test_an_output_of_spikes_that_are_zeros_is_told(caplog):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    for threshold, count in ((0.01, 0), (1e9, 1)):
        torch.manual_seed(0)
        neuron = sb.LIF(1, threshold=threshold, backend="reference")
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4), neuron)
        sb.attach(net, at=["1"], sample=x)
        assert len(caplog.messages) == count
    assert "the output of Sequential is spikes, and 0 for all samples" in caplog.text
    assert "use a readout that does not fire, or a lower threshold" in caplog.text


def test_a_failed_attach_leaves_no_hook(make_network, batch):
    model = Shared()
    with pytest.raises(ValueError, match="called 2 times"):
        sb.attach(model, at=["twice"], sample=batch[0])
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("wrong", [{"num_steps": 4}, {"layout": "time_first"}])
def test_a_network_that_owns_its_time_is_asked_for_none(wrong):
    model = sb.create_model("resnet20", num_steps=2, width=0.25)
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: a SpikingNetwork owns its time steps, here 2"):
        sb.attach(model, sample=torch.zeros(2, 3, 8, 8), **wrong)


def test_attach_and_branches_in_inference_mode():
    with torch.inference_mode():
        net = sb.attach(
            sb.create_model("resnet20", num_steps=2, width=0.25), at="stages", sample=torch.zeros(2, 3, 8, 8)
        )
        assert len(net.train()(torch.rand(2, 3, 8, 8)).branches) == 2


def test_a_network_that_has_branches_is_refused(make_network, batch):
    model = make_network()
    net = sb.attach(model, sample=batch[0])
    with pytest.raises(ValueError, match="has branches already"):
        sb.attach(model, sample=batch[0])
    assert sb.attach(sb.strip(net), sample=batch[0]).places == net.places


def test_a_branch_after_what_is_frozen_is_told_once(make_network, batch, caplog):
    x, _ = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    net.model.network.stem.requires_grad_(False)
    net.model.network.layer1.requires_grad_(False)
    for _ in range(2):
        net(x)
    assert [record.message for record in caplog.records] == [
        "no trainable weights precede the branches at layer1: leave them out"
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"at": [nn.Linear(2, 2)]}, "give the names of modules"), ({"head": nn.Linear(2, 2)}, "that makes a head")],
)
def test_modules_in_place_of_names_and_of_what_makes_a_head(make_network, batch, wrong, message):
    with pytest.raises(ValueError, match=message):
        sb.attach(make_network(), sample=batch[0], **wrong)


def test_as_many_channels_as_pixels():
    layer, neuron = (pytest.importorskip(f"spikingjelly.activation_based.{name}") for name in ("layer", "neuron"))
    functional = pytest.importorskip("spikingjelly.activation_based.functional")
    torch.manual_seed(0)
    blocks = [(layer.Conv2d(i, 8, 3, padding=1), layer.BatchNorm2d(8), neuron.LIFNode()) for i in (3, 8, 8)]
    head = layer.AdaptiveAvgPool2d(1), layer.Flatten(), layer.Linear(8, 5)
    net = nn.Sequential(*(module for block in blocks for module in block), *head)
    functional.set_step_mode(net, "m")
    net = sb.attach(net, sample=torch.randn(2, 4, 3, 8, 8), reduce="mean")
    assert net.places == ("2", "5")
    assert {tap.features_at for tap in net.taps} == {2}


def test_an_output_that_is_silent_is_read_by_what_lies_before_it():
    """snnTorch's usual form: `[N, T, C, ...]` in, stacked spikes and membranes of each step out."""
    snntorch = pytest.importorskip("snntorch")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.first = nn.Conv2d(2, 6, 3), snntorch.Leaky(beta=0.9, threshold=0.2)
            self.conv2, self.second = nn.Conv2d(6, 6, 3), snntorch.Leaky(beta=0.9, threshold=0.1)
            self.fc, self.last = nn.Linear(6 * 16, 5), snntorch.Leaky(beta=0.9, threshold=1e9)

        def forward(self, x):
            states = [neuron.init_leaky() for neuron in (self.first, self.second, self.last)]
            spikes, membranes = [], []
            for step in x.unbind(1):
                spike, states[0] = self.first(self.conv(step), states[0])
                spike, states[1] = self.second(self.conv2(spike), states[1])
                spike, states[2] = self.last(self.fc(spike.flatten(1)), states[2])
                spikes.append(spike)
                membranes.append(states[2])
            return torch.stack(spikes), torch.stack(membranes)

    torch.manual_seed(0)
    net = sb.attach(Net(), at=["first", "second"], sample=torch.rand(3, 4, 2, 8, 8), reduce="sum")
    outputs = net(torch.rand(5, 4, 2, 8, 8))
    assert outputs.logits.shape == (5, 5)
    assert {branch.shape for branch in outputs.branches.values()} == {(5, 5)}


@pytest.mark.parametrize("resets", ["not", "before", "in its forward"])
def test_a_reset_that_was_forgotten_is_told(caplog, resets):
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    torch.manual_seed(0)
    layers = [module for _ in range(3) for module in (nn.Linear(4, 4), neuron.LIFNode(v_threshold=0.3))]
    model = nn.Sequential(*layers, nn.Linear(4, 3))
    net = sb.attach(model, at=["1", "3"], sample=torch.rand(2, 4))
    if resets == "in its forward":
        model.register_forward_pre_hook(lambda module, inputs: sb.reset_states(module) and None)
    for _ in range(3):
        if resets == "before":
            sb.reset_states(net)
        net(torch.rand(5, 4))
    told = [record.message for record in caplog.records if "remembers the last batch" in record.message]
    assert len(told) == (resets == "not")
    assert all("sb.reset_states(net)" in message for message in told)


def test_a_head_that_is_no_module_is_refused():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"head: made a NoneType for 6 features, but must make an nn\.Module"):
        sb.attach(model, at=["1"], sample=torch.randn(4, 5), head=lambda features, classes: None)
    assert not any(module._forward_hooks for module in model.modules())


def test_lazy_heads_draw_weights_of_their_own():
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    x = torch.randn(4, 5)
    net = sb.attach(model, at=["1", "3"], sample=x, head=lambda features, classes: nn.LazyLinear(classes))
    net(x)
    assert not torch.equal(net.heads[0].weight, net.heads[1].weight)


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (nn.Linear(2, 2), "give the names of modules"),
        (nn.Sequential(nn.Linear(2, 2)), "give the names of modules"),
        (nn.Sequential(), "give the names of modules"),
        (None, "at=None: write 'blocks', 'stages' or 'auto', or names"),
        (3, "at=3: write"),
        ([3], r"at=\[3\]: write"),
    ],
)
def test_places_are_a_word_or_names(at, message):
    with pytest.raises(ValueError, match=message):
        sb.attach(nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)), at=at, sample=torch.randn(4, 5))


def test_names_may_come_from_anything_that_gives_them():
    for names in ((n for n in ("1", "3")), {"3": 0, "1": 0}.keys(), ("1", "3")):
        model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
        assert sb.attach(model, at=names, sample=torch.randn(4, 5)).places == ("1", "3")

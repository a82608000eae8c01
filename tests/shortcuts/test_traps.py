"""What networks do that spoils a tap: it works all the same, or it is refused with a reason."""

import copy
import functools
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import shortback as sb
from shortback.models.fused import average_of, conv_norm_fire


@pytest.fixture
def x():
    return torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class InPlace(nn.Module):
    """What two modules return is changed in place afterwards."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.flat = nn.Conv2d(1, 3, 3), nn.Flatten()
        self.hidden, self.relu, self.fc = nn.Linear(108, 6), nn.ReLU(inplace=True), nn.Linear(6, 10)

    def forward(self, x):
        out = self.conv(x)
        out += out.detach() + 1
        return self.fc(self.relu(self.hidden(self.flat(out))))


def test_a_tap_sees_what_the_module_returned_before_it_is_changed_in_place(x):
    net = sb.attach(InPlace(), at=["conv", "hidden"], sample=x)
    out = net(x)
    model = net.model
    current = model.conv(x)
    torch.testing.assert_close(out.branches["conv"], net.heads[0](current.mean((2, 3))))
    hidden = model.hidden((2 * current + 1).flatten(1))
    assert (hidden < 0).any()
    torch.testing.assert_close(out.branches["hidden"], net.heads[1](hidden))
    gradients = torch.autograd.grad(out.branches["hidden"].sum(), model.hidden.weight)[0]
    expected = torch.autograd.grad(net.heads[1](hidden).sum(), model.hidden.weight)[0]
    torch.testing.assert_close(gradients, expected)


class Checkpointed(nn.Module):
    def __init__(self, *, use_reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 3, 3)
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
        self.fc = nn.Linear(3, 10)
        self.use_reentrant, self.on = use_reentrant, True

    def forward(self, x):
        x = self.stem(x)
        x = checkpoint(self.block, x, use_reentrant=self.use_reentrant) if self.on else self.block(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("at", ["block", "block.0", "block.1"])
def test_activation_checkpointing_gives_the_same_gradients(x, at):
    gradients = []
    for on in (False, True):
        model = Checkpointed(use_reentrant=False)
        model.on = on
        net = sb.attach(model, at=[at], sample=x)
        out = net(x)
        (out.logits.square().sum() + out.branches[at].square().sum()).backward()
        gradients.append([p.grad for p in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:None of the inputs")  # said of the dry run, which needs no gradients
def test_reentrant_checkpointing_is_refused_inside_and_works_around(x):
    inside = sb.attach(Checkpointed(use_reentrant=True), at=["block.0"], sample=x)
    with pytest.raises(RuntimeError, match="use use_reentrant=False"):
        inside(x)
    whole = sb.attach(Checkpointed(use_reentrant=True), at=["stem"], sample=x)
    whole(x).branches["stem"].sum().backward()
    assert whole.model.stem.weight.grad.abs().sum() > 0


def test_our_layers_under_checkpointing(make_network, batch):
    x, y = batch
    gradients = []
    for on in (False, True):
        model = make_network()
        if on:
            stage = model.network.layer1
            stage.forward = lambda x, blocks=list(stage): [x := checkpoint(b, x, use_reentrant=False) for b in blocks][
                -1
            ]
        net = sb.attach(model, at="blocks", sample=x)
        sb.shortcut_loss(net(x), y, coefficient=1.0).total.backward()
        gradients.append([p.grad for p in net.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_wrappers_that_run_copies_are_refused(x):
    with pytest.raises(ValueError, match="use DistributedDataParallel instead"):
        sb.attach(nn.DataParallel(InPlace()), at=["conv"], sample=x)
    net = sb.attach(InPlace(), at=["conv"], sample=x)
    net._is_replica = True  # as DataParallel marks its copies
    with pytest.raises(RuntimeError, match="use DistributedDataParallel instead"):
        net(x)


class Repeats(nn.Module):
    """Calls a module as often as it is told."""

    def __init__(self):
        super().__init__()
        self.conv, self.times, self.fc = nn.Conv2d(1, 1, 3, padding=1), 1, nn.Linear(64, 10)

    def forward(self, x):
        for _ in range(self.times):
            x = self.conv(x)
        return self.fc(x.flatten(1))


def test_a_shared_module_is_refused_and_one_that_becomes_shared_too(x):
    shared = Repeats()
    shared.times = 3
    with pytest.raises(ValueError, match="several places of the network share it"):
        sb.attach(shared, at=["conv"], sample=x)
    net = sb.attach(Repeats(), at=["conv"], sample=x)
    for times in (0, 2):
        net.model.times = times
        with pytest.raises(RuntimeError, match=f"called {times} times in this forward, unlike in the dry run"):
            net(x)
    net.model.times = 1
    assert net(x).branches


class ResetsItself(nn.Module):
    """Resets its neurons in its own forward, before or after."""

    def __init__(self, when):
        super().__init__()
        torch.manual_seed(0)
        snntorch = pytest.importorskip("snntorch")
        self.when, self.conv, self.fc, self.num_steps = when, nn.Conv2d(1, 4, 3), nn.Linear(144, 10), 3
        self.lif = snntorch.Leaky(beta=0.9, threshold=0.3, init_hidden=True)

    def forward(self, x):
        if self.when == "before":
            self.lif.reset_mem()
        out = torch.stack([self.fc(self.lif(self.conv(x)).flatten(1)) for _ in range(self.num_steps)])
        if self.when == "after":
            self.lif.reset_mem()
        return out


@pytest.mark.parametrize("when", ["before", "after"])
def test_networks_that_reset_themselves(x, when):
    net = sb.attach(ResetsItself(when), at=["lif"], sample=x, reduce="mean")
    outs = [net(x) for _ in range(2)]
    assert torch.equal(outs[0].logits, outs[1].logits)
    assert torch.equal(outs[0].branches["lif"], outs[1].branches["lif"])
    outs[1].branches["lif"].sum().backward()
    assert net.model.conv.weight.grad.abs().sum() > 0


def test_a_copy_of_a_network_with_a_registry_resets_its_own_neurons(x):
    net = sb.attach(ResetsItself("never"), at=["lif"], sample=x, reduce="mean")
    copied = copy.deepcopy(net)
    for one, other in ((net, copied), (copied, net)):
        sb.reset_states(net)
        sb.reset_states(copied)
        first = one(x).logits
        other(x)
        sb.reset_states(one)
        assert torch.equal(one(x).logits, first)


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_branches_dropped_under_distributed_data_parallel(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)

    def step(wrapped):
        sb.shortcut_loss(wrapped(x), y, coefficient=1.0).total.backward()

    wrapped = nn.parallel.DistributedDataParallel(net)
    step(wrapped)
    step(wrapped)
    assert net.heads[0].weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="wrap the result"):
        sb.attach(wrapped, at="stages", sample=x)
    net.branches_enabled = False
    net.heads.requires_grad_(False)
    wrapped = nn.parallel.DistributedDataParallel(net)
    before = net.heads[0].weight.grad.clone()
    step(wrapped)
    step(wrapped)
    assert torch.equal(net.heads[0].weight.grad, before)


def test_a_forward_that_fails_leaves_no_graph_behind(x):
    net = sb.attach(InPlace(), at=["conv"], sample=x)
    with pytest.raises(RuntimeError):
        net(x[:, :, :5])  # the linear layer, which comes after the tap, takes another size
    assert net.taps[0].average is None
    copy.deepcopy(net)
    assert net(x).branches


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("whole", [True, False])
def test_a_network_that_is_converted_after_attach(x, dtype, whole):
    net = sb.attach(InPlace(), at=["conv"], sample=x)
    (net if whole else net.model).to(dtype)
    out = net(x.to(dtype))
    head = net.heads[0]
    assert head.weight.dtype == (dtype if whole else torch.float32)
    average = net.model.conv(x.to(dtype)).to(torch.promote_types(dtype, torch.float32)).mean((2, 3))
    torch.testing.assert_close(out.branches["conv"], head(average.to(head.weight.dtype)))
    out.branches["conv"].float().sum().backward()
    assert net.model.conv.weight.grad.abs().sum() > 0


def test_a_module_called_once_a_step_may_have_another_number_of_steps(x):
    net = sb.attach(ResetsItself("before"), at=["lif"], sample=x, reduce="mean")
    net.model.num_steps = 5
    spikes = []
    handle = net.model.lif.register_forward_hook(lambda module, inputs, output: spikes.append(output.mean((2, 3))))
    out = net(x)
    handle.remove()
    assert len(spikes) == 5
    torch.testing.assert_close(out.branches["lif"], net.heads[0](torch.stack(spikes).mean(0)))


class Counted(nn.Module):
    """Two layers of one operation each, which share a neuron, and something after each of them."""

    def __init__(self, num_steps=2, first=nn.Identity, second=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.convs = nn.ModuleList(nn.Conv2d(i, 6, 3, padding=1, bias=False) for i in (1, 6))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(2))
        self.neuron, self.fc = sb.LIF(num_steps, backend="compiled"), nn.Linear(6, 10)
        self.after = nn.ModuleList([first(), second()])
        for norm in self.norms:
            nn.init.ones_(norm.bias)

    def forward(self, x):
        for conv, norm, after in zip(self.convs, self.norms, self.after, strict=True):
            x = after(conv_norm_fire(x, conv=conv, norm=norm, neuron=self.neuron))
        return self.fc(x.mean((2, 3)))


class Steps(Counted):
    def forward(self, x):
        return torch.stack([super(Steps, self).forward(step) for step in x])


@contextmanager
def returned_by(*modules):
    """The averages over space of what modules return, and whether a layer had counted them."""
    seen = [[] for _ in modules]
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, seen=each: seen.append(
                (output.detach().mean((2, 3)), average_of(output) is not None)
            )
        )
        for module, each in zip(modules, seen, strict=True)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


class Doubled(nn.Module):
    """Changes what it is given in place, in training."""

    @torch.no_grad()
    def forward(self, x):
        return x.mul_(2) if self.training else x


@pytest.mark.slow  # kernels are compiled
@pytest.mark.parametrize(
    "first", [nn.Identity, functools.partial(nn.Dropout, 0.5), Doubled], ids=["itself", "dropout", "in place"]
)
def test_what_a_layer_counted_is_taken_of_the_very_tensor_it_returned(x, first):
    """In `eval()`, where the dry run is, dropout returns what it is given."""
    model = sb.SpikingNetwork(Counted(first=first).to(memory_format=torch.channels_last), num_steps=2)
    net = sb.attach(model, at=["after.0", "after.1"], sample=x)
    assert all(tap.neuron is model.network.neuron for tap in net.taps)
    with returned_by(*model.network.after) as seen:
        out = net(x.to(memory_format=torch.channels_last))
    for (average, is_counted), head, place, module in zip(
        *([each[0] for each in seen], net.heads, net.places, model.network.after), strict=True
    ):
        assert is_counted == isinstance(module, nn.Identity)
        torch.testing.assert_close(out.branches[place], head(average.unflatten(0, (2, -1)).mean(0)))
    sum(branch.sum() for branch in out.branches.values()).backward()
    assert all(conv.weight.grad.abs().sum() > 0 for conv in model.network.convs)
    assert all(average_of(spikes) is None for spikes in (x, x + 1))


@pytest.mark.slow
def test_what_is_counted_once_a_step_is_added_up():
    xs = torch.randn(3, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Steps(num_steps=1).to(memory_format=torch.channels_last)
    net = sb.attach(model, at=["after.0"], sample=xs, layout="steps")
    with returned_by(model.after[0]) as seen:
        out = net(xs)
    averages, are_counted = zip(*seen[0], strict=True)
    assert are_counted == (True, True, True)
    assert not torch.equal(averages[0], averages[2])
    torch.testing.assert_close(out.branches["after.0"], net.heads[0](torch.stack(averages).mean(0)))

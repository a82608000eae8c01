"""Where several axes are as long as there are features, a run tells which of them it is."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import shortback as sb


class Fire(nn.Module):
    def forward(self, x):
        return (x > 0.1).to(x.dtype)


class TimeLast(nn.Module):
    """As in lava-dl: convolutions over `[N, C, H, W, T]`, as wide as there are channels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.fire1 = nn.Conv3d(1, 6, (3, 3, 1), padding=(1, 1, 0)), Fire()
        self.conv2, self.fire2 = nn.Conv3d(6, 6, (3, 3, 1), padding=(1, 1, 0)), Fire()
        self.fc = nn.Linear(6, 10)

    def forward(self, x):
        x = self.fire2(self.conv2(self.fire1(self.conv1(x))))
        return self.fc(x.mean((2, 3)).transpose(1, 2)).transpose(1, 2)  # [N, K, T]


def test_channels_and_width_of_one_length_with_time_last():
    net, x = TimeLast(), torch.randn(4, 1, 6, 6, 5)
    branched = sb.attach(net, at=["fire1", "fire2"], sample=x, layout="time_last", reduce="mean")
    out = branched(x)
    for place, head in zip(branched.places, branched.heads, strict=True):
        spikes = net.fire1(net.conv1(x))
        if place == "fire2":
            spikes = net.fire2(net.conv2(spikes))
        torch.testing.assert_close(out.branches[place], head(spikes.mean((2, 3, 4))))


class Tokens(nn.Module):
    """Tokens `[N, L, C]`, as many as features, which a block hands on the other way round."""

    def __init__(self, *, transposed):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.block, self.fc = nn.Linear(5, 8), Block(transposed=transposed), nn.Linear(8, 10)
        self.axis = 2 if transposed else 1

    def forward(self, x):
        return self.fc(self.block(self.embed(x)).mean(self.axis))


class Block(nn.Module):
    def __init__(self, *, transposed):
        super().__init__()
        self.linear, self.transposed = nn.Linear(8, 8), transposed

    def forward(self, x):
        x = x + self.linear(x)
        return x.transpose(1, 2) if self.transposed else x


@pytest.mark.parametrize("transposed", [False, True])
def test_as_many_tokens_as_features(transposed):
    net, x = Tokens(transposed=transposed), torch.randn(4, 8, 5)
    branched = sb.attach(net, at="block", sample=x)
    tokens = net.embed(x)
    expected = branched.heads[0]((tokens + net.block.linear(tokens)).mean(1))
    torch.testing.assert_close(branched(x).branches["block"], expected)


class Mixed(Block):
    """A change of one feature is seen everywhere, so that no run tells the axes apart."""

    def __init__(self):
        super().__init__(transposed=False)

    def forward(self, x):
        return super().forward(x).softmax(2) @ x.new_ones(8, 8).triu()


def test_what_stays_open_is_asked_for():
    net, x = Tokens(transposed=False), torch.randn(4, 8, 5)
    net.block = Mixed()
    with pytest.raises(ValueError, match=r"at='block'.*\[4, 8, 8\].*use features=1 or 2"):
        sb.attach(net, at="block", sample=x)
    branched = sb.attach(net, at="block", sample=x, features=-1)
    torch.testing.assert_close(branched(x).branches["block"], branched.heads[0](net.block(net.embed(x)).mean(1)))


def test_an_axis_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"features=0: block returns \[4, 8, 8\].*from 1 to 2"):
        sb.attach(Tokens(transposed=False), at="block", sample=torch.randn(4, 8, 5), features=0)


class Pair(nn.Module):
    """Neurons that return their membrane first, or both by name."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        spikes = (x > 0.1).to(x.dtype)
        return {"first": (x, spikes), "named": {"spikes": spikes, "membrane": x}}[self.form]


class WithPairs(nn.Module):
    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.lif, self.fc = nn.Conv2d(1, 4, 3), Pair(form), nn.Linear(4, 10)

    def forward(self, x):
        out = self.lif(self.conv(x))
        return self.fc((out[1] if isinstance(out, tuple) else out["spikes"]).mean((2, 3)))


def test_of_several_tensors_the_spikes_are_tapped_or_what_is_asked_for():
    x = torch.randn(4, 1, 8, 8)
    net = WithPairs("first")
    membrane = net.conv(x)
    for settings, tapped in (({}, membrane > 0.1), ({"output": 0}, membrane)):
        branched = sb.attach(net, at="lif", sample=x, **settings)
        torch.testing.assert_close(branched(x).branches["lif"], branched.heads[0](tapped.float().mean((2, 3))))
        sb.strip(branched)
    net = WithPairs("named")
    with pytest.raises(ValueError, match=r"output='spike': lif returns dict, with \['spikes', 'membrane'\]"):
        sb.attach(net, at="lif", sample=x, output="spike")
    for settings, tapped in (({}, net.conv(x) > 0.1), ({"output": "membrane"}, net.conv(x))):
        branched = sb.attach(net, at="lif", sample=x, **settings)
        torch.testing.assert_close(branched(x).branches["lif"], branched.heads[0](tapped.float().mean((2, 3))))
        sb.strip(branched)


class ChannelAttention(nn.Module):
    """As of ECA-Net: the last layer with weights is a convolution over the channels, of one feature."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x):
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return x * gate[:, :, None, None]


class SideBySide(nn.Module):
    """Two convolutions whose outputs are joined, as of SqueezeNet, GoogLeNet and DenseNet."""

    def __init__(self, num_inputs):
        super().__init__()
        self.a, self.b, self.act = nn.Conv2d(num_inputs, 4, 1), nn.Conv2d(num_inputs, 8, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return torch.cat([self.act(self.a(x)), self.act(self.b(x))], 1)


def attention(num_inputs):
    return nn.Sequential(nn.Conv2d(num_inputs, 12, 3, padding=1), nn.BatchNorm2d(12), ChannelAttention(), nn.ReLU())


def shuffle(num_inputs):
    return nn.Sequential(nn.Conv2d(num_inputs, 48, 3, padding=1), nn.PixelShuffle(2), nn.ReLU(), nn.AvgPool2d(2))


@pytest.mark.parametrize("size", [(8, 8), (8, 10), (10, 8), (12, 12), (48, 48), (6, 6)])
@pytest.mark.parametrize("block", [attention, SideBySide, shuffle])
def test_the_last_layer_need_not_make_the_features(block, size):
    torch.manual_seed(0)
    blocks = nn.Sequential(*(block(12 if i else 3) for i in range(3)))
    net, x = nn.Sequential(blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5)), torch.randn(2, 3, *size)
    branched = sb.attach(net.eval(), sample=x).train()
    assert branched.places == ("0.0", "0.1")
    net.eval()
    with torch.no_grad():
        out = branched(x)
        seen = blocks[0](x)
    torch.testing.assert_close(out.branches["0.0"], branched.heads[0](seen.mean((2, 3))))


class TimeAttention(nn.Module):
    """Weighs the time steps of `[T, N, C, H, W]` by linear layers over them."""

    def __init__(self, num_steps):
        super().__init__()
        linears = (nn.Linear(num_steps, num_steps) for _ in range(2))
        self.gate = nn.Sequential(next(linears), nn.ReLU(), next(linears), nn.Sigmoid())

    def forward(self, x):
        return x * self.gate(x.mean((2, 3, 4)).t()).t()[:, :, None, None, None]


class WithTimeAttention(nn.Module):
    def __init__(self, num_steps):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.attention = (
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            TimeAttention(num_steps),
        )

    def forward(self, x):
        currents = self.norm(self.conv(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        return (self.attention(currents) > 0.2).to(x.dtype)


@pytest.mark.parametrize(("num_steps", "size"), [(4, 8), (5, 4), (8, 8), (4, 4)])
def test_attention_over_time_makes_no_features(num_steps, size):
    """A change of one feature is seen everywhere, through the gate. As many pixels as steps are asked about."""
    block = WithTimeAttention(num_steps)
    net, x = nn.Sequential(block, nn.Flatten(2), nn.Linear(6 * size**2, 5)), torch.randn(num_steps, 3, 3, size, size)
    if size == num_steps:
        with pytest.raises(ValueError, match=r"neither sizes nor a dry run show.*: use features=2 or 3 or 4"):
            sb.attach(net, at=["0"], sample=x)
    else:
        branched = sb.attach(net, at=["0"], sample=x)
        assert [(tap.layout, tap.features_at) for tap in branched.taps] == [("time_first", 2)]


@pytest.mark.parametrize("size", [(8, 8), (8, 10)])
def test_the_error_lists_every_axis_on_which_they_may_lie(size):
    """Rows as many as the last convolution has outputs: of a map, features never lie between the axes of space."""

    class Blurred(SideBySide):
        def forward(self, x):
            return super().forward(x).flatten(1).softmax(1).view(len(x), 12, *x.shape[2:])

    torch.manual_seed(0)
    net, x = nn.Sequential(Blurred(3), nn.Flatten(), nn.Linear(12 * size[0] * size[1], 5)), torch.randn(2, 3, *size)
    with pytest.raises(ValueError, match=rf"\[2, 12, 8, {size[1]}\] .*: use features=1 or 2 or 3"):
        sb.attach(net, at=["0"], sample=x)
    out = sb.attach(net, at=["0"], sample=x, features=1)(x)
    assert out.logits.shape == out.branches["0"].shape == (2, 5)


class Shuffled(nn.Module):
    """A change of one feature is seen everywhere, through a norm of the whole sample."""

    def __init__(self, num_inputs, width):
        super().__init__()
        self.conv, self.act = nn.Conv2d(num_inputs, width, 3, padding=1), nn.ReLU()
        self.wide, self.shuffle, self.pool = nn.Conv2d(width, 4 * width, 1), nn.PixelShuffle(2), nn.AvgPool2d(2)

    def forward(self, x):
        return F.group_norm(self.pool(self.shuffle(self.wide(self.act(self.conv(x))))), 1)


class GatedBySpace(nn.Module):
    """As above, after a gate of one feature."""

    def __init__(self, num_inputs, width):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(num_inputs, width, 3, padding=1), nn.GroupNorm(1, width), nn.ReLU()
        self.gate = nn.Conv2d(width, 1, 1)

    def forward(self, x):
        y = self.act(self.norm(self.conv(x)))
        return F.layer_norm(y * self.gate(y).sigmoid(), y.shape[1:])


@pytest.mark.parametrize(("block", "size"), [(Shuffled, (8, 8)), (GatedBySpace, (8, 6)), (GatedBySpace, (8, 8))])
def test_the_usual_axis_of_a_map_of_convolutions_where_a_run_does_not_tell(block, size):
    torch.manual_seed(0)
    layers = [block(3, 8), block(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    branched = sb.attach(nn.Sequential(*layers), at=["0", "1"], sample=torch.randn(4, 3, *size))
    assert [tap.features_at for tap in branched.taps] == [1, 1]


@pytest.mark.parametrize("width", [5, 8])
def test_a_norm_of_whole_images_does_not_tell_the_axis(width):
    def block(num_inputs):
        return nn.Sequential(nn.Conv2d(num_inputs, width, 3, padding=1), nn.LayerNorm([width, 8, 8]), nn.ReLU())

    torch.manual_seed(0)
    net = nn.Sequential(block(3), block(width), nn.Flatten(), nn.Linear(64 * width, 3))
    branched = sb.attach(net, at=["0", "1", "1.1"], sample=torch.randn(4, 3, 8, 8))
    assert [tap.features_at for tap in branched.taps] == [1, 1, 1]


class Mixer(nn.Module):
    """Linear layers over features and over tokens, and a norm of the whole sample."""

    def __init__(self, num_tokens, width):
        super().__init__()
        self.features, self.act, self.tokens = nn.Linear(width, width), nn.ReLU(), nn.Linear(num_tokens, num_tokens)

    def forward(self, x):
        x = x + self.act(self.features(x))
        return F.layer_norm(x + self.tokens(x.transpose(1, 2)).transpose(1, 2), x.shape[1:])


class OverTime(nn.Module):
    """A convolution of one axis, whose output comes as tokens `[N, L, C]`."""

    def __init__(self, num_tokens, width):
        super().__init__()
        self.conv, self.act = nn.Conv1d(width, width, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return F.layer_norm(self.act(self.conv(x.transpose(1, 2))).transpose(1, 2), x.shape[1:])


@pytest.mark.parametrize(("block", "num_tokens"), [(Mixer, 5), (Mixer, 8), (OverTime, 8)])
def test_tokens_and_time_that_a_run_does_not_tell_from_features_are_asked_about(block, num_tokens):
    torch.manual_seed(0)
    net = nn.Sequential(block(num_tokens, 8), nn.Flatten(), nn.Linear(8 * num_tokens, 3))
    with pytest.raises(ValueError, match=rf"\[4, {num_tokens}, 8\] .*: use features=1 or 2"):
        sb.attach(net, at=["0"], sample=torch.randn(4, num_tokens, 8))


def pruned(layer):
    return prune.l1_unstructured(layer, "weight", 0.3)


def old_weight_norm(layer):
    with warnings.catch_warnings(action="ignore"):  # it is on its way out of PyTorch
        return weight_norm(layer)


NORMS = [parametrizations.weight_norm, parametrizations.spectral_norm, spectral_norm, old_weight_norm, pruned]


@pytest.mark.parametrize("norm", NORMS)
def test_layers_whose_weight_is_computed_are_layers(norm):
    torch.manual_seed(0)
    layers = [norm(nn.Linear(8, 8)) for _ in range(3)]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.Flatten(), nn.Linear(80, 5))
    net.train()(torch.randn(4, 10, 8))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    branched = sb.attach(net, at=["1", "3"], sample=torch.randn(4, 10, 8))
    assert [head.in_features for head in branched.heads] == [8, 8]  # of tokens [N, L, C]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_blocks_of_one_neuron_and_layers_whose_weight_is_computed(norm):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers, self.fire = nn.ModuleList(norm(nn.Linear(8, 8)) for _ in range(3)), Fire()
            self.fc = nn.Linear(8, 5)

        def forward(self, x):
            for layer in self.layers:
                x = self.fire(layer(x))
            return self.fc(x)

    torch.manual_seed(0)
    assert sb.attach(Shared(), sample=3 * torch.randn(4, 8)).places == ("layers.0", "layers.1")

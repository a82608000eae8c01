"""Where several axes are as long as there are features, a run tells which of them it is."""

import pytest
import torch
from torch import nn

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
    with pytest.raises(ValueError, match=r"at='block'.*\[4, 8, 8\].*say features=1 or 2"):
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
    with pytest.raises(ValueError, match=r"returns dict.*say output="):
        sb.attach(net, at="lif", sample=x)
    with pytest.raises(ValueError, match=r"output='spike': lif returns dict, with \['spikes', 'membrane'\]"):
        sb.attach(net, at="lif", sample=x, output="spike")
    branched = sb.attach(net, at="lif", sample=x, output="spikes")
    tapped = (net.conv(x) > 0.1).float().mean((2, 3))
    torch.testing.assert_close(branched(x).branches["lif"], branched.heads[0](tapped))

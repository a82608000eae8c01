"""One network, its time run through it in every way there is: the branches see the same."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.inspection.layout import (
    as_long_as_features,
    average_over_space,
    average_over_time,
    axes_of_features,
    feature_axis,
    logits_of,
    num_features,
)

T, N, C = 3, 4, 5


def test_averages_by_hand():
    activation = torch.arange(16.0).reshape(4, 2, 1, 2)  # T=2, N=2, C=2
    features = average_over_space(activation)
    assert features.tolist() == [[0.5, 2.5], [4.5, 6.5], [8.5, 10.5], [12.5, 14.5]]
    assert average_over_time(features, num_samples=2).tolist() == [[4.5, 6.5], [8.5, 10.5]]
    assert torch.equal(average_over_time(features, num_samples=4), features)


def test_bfloat16_is_summed_in_float32():
    ones = torch.ones(1, 1, 100, 100, dtype=torch.bfloat16)
    assert average_over_space(ones).dtype == torch.float32
    assert average_over_space(ones).item() == 1


class Membrane(nn.Module):
    """Adds up what comes, step by step, and returns that and its state, as cells do."""

    def __init__(self):
        super().__init__()
        self.state = None

    def forward(self, x):
        self.state = x if self.state is None else self.state + x
        return self.state, self.state


class Network(nn.Module):
    """The same computation with time where the layout has it: `[N, 1, 6, 6]` in, logits of every step out."""

    def __init__(self, layout):
        super().__init__()
        torch.manual_seed(0)
        self.layout, self.cell, self.tapped = layout, Membrane(), nn.Identity()
        self.conv, self.fc = nn.Conv2d(1, C, 3), nn.Linear(C, 10)

    def forward(self, x):
        current = self.conv(x)
        self.cell.state = None
        if self.layout == "steps":
            steps = [self.tapped(self.cell(current))[0] for _ in range(T)]
            return [self.fc(step.mean((2, 3))) for step in steps]
        sequence = torch.stack([(i + 1) * current for i in range(T)])  # what the cell adds up to
        out = self.tapped(self.moved(sequence))
        logits = self.fc(sequence.mean((3, 4)))
        assert out.shape.numel() == sequence.shape.numel()
        return {"batch_first": logits.transpose(0, 1), "time_last": logits.permute(1, 2, 0)}.get(
            self.layout, (logits, "state")
        )

    def moved(self, sequence):
        return {
            "folded": lambda: sequence.flatten(0, 1),
            "folded_batch": lambda: sequence.transpose(0, 1).flatten(0, 1),
            "time_first": lambda: sequence,
            "batch_first": lambda: sequence.transpose(0, 1),
            "time_last": lambda: sequence.movedim(0, -1),
        }[self.layout]()


LAYOUTS = ["folded", "folded_batch", "time_first", "batch_first", "time_last", "steps"]


@pytest.mark.parametrize("says", [True, False], ids=["said", "found"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_branches_see_the_same_in_every_layout(layout, says):
    x = torch.randn(N, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    net = sb.attach(Network(layout), at=["tapped"], sample=x, layout=layout if says else "auto", reduce="mean")
    features = 2 * net.model.conv(x).mean((2, 3))  # the mean of 1, 2 and 3 times the current
    for _ in range(2):  # nothing is left over from one call to the next
        out = net(x)
        torch.testing.assert_close(out.logits, net.model.fc(features))
        torch.testing.assert_close(out.branches["tapped"], net.heads[0](features))
    out.branches["tapped"].sum().backward()
    assert net.model.conv.weight.grad.abs().sum() > 0
    torch.testing.assert_close(net.eval()(x).logits, out.logits)
    returned = {"batch_first": torch.Tensor, "time_last": torch.Tensor, "steps": list}.get(layout, tuple)
    assert type(sb.strip(net)(x)) is returned


@pytest.mark.parametrize("wrong", ["time_first", "batch_first", "steps"])
def test_another_layout_than_it_has_is_refused(wrong):
    x = torch.randn(N, 1, 6, 6)
    with pytest.raises(ValueError, match=rf"with layout='{wrong}' it needs"):
        sb.attach(Network("folded"), at=["tapped"], sample=x, layout=wrong, reduce="mean")
    with pytest.raises(ValueError, match="or once a step, and then layout='steps'"):
        sb.attach(Network("steps"), at=["tapped"], sample=x, layout="folded", reduce="mean")


def test_misspelt_words_are_named():
    x = torch.randn(N, 1, 6, 6)
    with pytest.raises(ValueError, match="must be one of auto, folded, "):
        sb.attach(Network("folded"), at=["tapped"], sample=x, layout="TN")
    with pytest.raises(ValueError, match="reduce='max'"):
        sb.attach(Network("folded"), at=["tapped"], sample=x, reduce="max")


def test_outputs_by_step_are_reduced():
    steps = torch.arange(12.0).reshape(2, 3, 2)  # T=2, N=3, K=2
    for output, layout in ((steps, "folded"), (list(steps), "steps"), (steps.transpose(0, 1), "batch_first")):
        assert torch.equal(logits_of(output, layout, None), steps)
        assert torch.equal(logits_of((output, "state"), layout, "mean"), steps.mean(0))
        assert torch.equal(logits_of(output, layout, "sum"), steps.sum(0))
        assert torch.equal(logits_of(output, layout, "last"), steps[1])
    assert torch.equal(logits_of(steps[0], "folded", "sum"), steps[0])
    with pytest.raises(ValueError, match="returns dict: it must return logits"):
        logits_of({}, "folded", None)


class LayerNorm2d(nn.LayerNorm):
    """Over the channels of images, as timm has it."""


@pytest.mark.parametrize(
    ("shape", "layout", "layer", "axis"),
    [
        ((4, 8, 5, 5), "folded", nn.Conv2d(1, 8, 3), 1),
        ((4, 8, 8, 8), "folded", nn.Conv2d(1, 8, 3), 1),
        ((4, 7, 7, 8), "folded", nn.Linear(2, 8), 3),  # [N, H, W, C]
        ((4, 7, 8), "folded", nn.LayerNorm(8), 2),  # tokens
        ((4, 8, 7), "folded", nn.BatchNorm1d(8), 1),
        ((4, 8, 7, 7), "folded", nn.Linear(2, 8), 1),  # a linear layer on permuted channels, as in ConvNeXt
        ((4, 8, 8, 8), "folded", LayerNorm2d(8), 1),
        ((4, 5, 16), "folded", nn.GRU(3, 8, bidirectional=True), 2),
        ((4, 5, 5), "folded", nn.LSTM(3, 5), 2),
        ((4, 24, 7, 7), "folded", nn.Conv2d(1, 8, 3), 1),  # put together from several
        ((4, 3, 8, 5, 5), "folded", nn.Conv2d(1, 8, 3), 2),  # [N, T, C, H, W]
        ((4, 3, 200), "folded", nn.Conv2d(1, 8, 3), 2),  # [N, T, F], flattened
        ((3, 4, 8, 5, 5), "time_first", nn.Conv2d(1, 8, 3), 2),
        ((3, 4, 8, 64), "time_first", nn.Conv1d(1, 8, 1), 2),
        ((4, 8, 5, 5, 3), "time_last", None, 1),
        ((4, 8), "steps", None, 1),
    ],
)
def test_the_axis_of_the_features(shape, layout, layer, axis):
    assert feature_axis(shape, layout, layer) == axis


def test_a_block_that_says_its_channels_is_no_layer():
    block = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())
    block.out_channels = 8
    assert num_features(block) is None
    assert num_features(block[0]) == 8


def test_time_that_comes_last_is_no_axis_of_features():
    assert list(axes_of_features((2, 5, 6, 7), "time_last")) == [1, 2]
    assert list(axes_of_features((2, 5, 6, 7), "batch_first")) == [2, 3]
    assert as_long_as_features((2, 5, 8, 8), "time_last", nn.Conv1d(1, 8, 3)) == [2]


def test_what_has_no_axis_to_average_is_a_copy_in_float32():
    x = torch.ones(3, 2, dtype=torch.bfloat16)
    average = average_over_space(x)
    x.zero_()
    assert average.dtype == torch.float32
    assert average.sum() == 6


def test_a_dict_has_its_logits_by_name():
    x = torch.randn(N, C)
    for output in ({"features": x + 1, "logits": x}, ({"logits": (x, x + 1)}, 0)):
        assert torch.equal(logits_of(output, "folded", None), x)
    steps = {"logits": [x, x + 1, x + 2]}
    assert torch.equal(logits_of(steps, "batch_first", "last"), x + 2)  # a list is of steps, whatever the layout
    with pytest.raises(ValueError, match=r"dict with 'out', 'aux': it must .* return self.network\(x\)\['out'\], or"):
        logits_of({"out": x, "aux": x}, "folded", None)


class Named(nn.Module):
    def __init__(self, returns):
        super().__init__()
        self.body = nn.Sequential(*(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)))
        self.returns = returns

    def forward(self, x):
        return self.returns(self.body(x))


def test_a_network_of_named_outputs_is_trained_and_tested(tmp_path):
    x, y = torch.randn(12, 5), torch.arange(12) % 3
    net = Named(lambda logits: {"features": logits * 0, "logits": logits})
    attached = sb.attach(net, sample=x)
    torch.testing.assert_close(attached(x).logits, net(x)["logits"])
    sb.training.fit(attached, [(x, y)], validation=[(x, y)], epochs=1, folder=tmp_path, loggers=[])
    assert sb.training.evaluate(sb.strip(attached), [(x, y)]).num_images == 12


@pytest.mark.parametrize(
    ("returns", "is_told"),
    [
        (lambda x: (x, x + 1, x + 2), True),
        (lambda x: ((x > 0).float(), (x > 0.1).float()), True),  # spikes of every step
        (lambda x: ((x > 0).float(), x), False),  # spikes and membranes
        (lambda x: (x, x @ torch.ones(3, 4)), False),
        (lambda x: (x, [x]), False),
        (lambda x: [x, x + 1], False),
        (lambda x: x, False),
    ],
)
def test_steps_in_a_tuple_are_told(returns, is_told, caplog):
    sb.attach(Named(returns), at=["body.0"], sample=torch.randn(4, 5))
    told = [m for m in caplog.messages if "tensors [4, 3], of which only the first is used as its output" in m]
    assert len(told) == is_told

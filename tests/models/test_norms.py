"""tdBN and TEBN against their equations, and as norms of the models."""

import functools
import math

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.models.norms import TemporalEffectiveNorm, threshold_dependent


def test_tdbn_begins_in_proportion_to_the_threshold():
    x = 3 + 2 * torch.randn(64, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    for is_added, alpha in ((False, 1.0), (True, 1 / math.sqrt(2))):
        y = threshold_dependent(4, threshold=0.5, is_added=is_added)(x)
        torch.testing.assert_close(y.std((0, 2, 3)), torch.full((4,), 0.5 * alpha), rtol=1e-2, atol=0)


@pytest.mark.parametrize("static", [False, True])
def test_tebn_by_its_equation_and_its_gradient(static):
    norm = TemporalEffectiveNorm(4, num_steps=3).double()
    norm.static_input = static
    with torch.no_grad():
        norm.by_step.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.norm.weight.uniform_(0.5, 2)
        norm.norm.bias.normal_()
    x = torch.randn(2 if static else 6, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    folded = x.repeat(3, 1, 1, 1) if static else x
    mean = folded.mean((0, 2, 3), keepdim=True)
    variance = folded.var((0, 2, 3), keepdim=True, unbiased=False)
    affine = norm.norm.weight.view(1, 4, 1, 1), norm.norm.bias.view(1, 4, 1, 1)
    normal = affine[0] * (folded - mean) / (variance + norm.norm.eps).sqrt() + affine[1]
    expected = (normal.unflatten(0, (3, 2)) * norm.by_step.view(3, 1, 1, 1, 1)).flatten(0, 1)
    torch.testing.assert_close(norm(x), expected)
    weights = torch.randn_like(expected)
    by_us, by_hand = (
        torch.autograd.grad((y * weights).sum(), (x, norm.by_step, norm.norm.weight)) for y in (norm(x), expected)
    )
    torch.testing.assert_close(by_us, by_hand)


@pytest.mark.parametrize("norm", ["tdbn", "tebn"])
@pytest.mark.parametrize("name", ["resnet20", "vgg11"])
def test_models_train_with_them(name, norm):
    torch.manual_seed(0)
    neuron = functools.partial(sb.LIF, threshold=0.5, backend="reference")
    model = sb.create_model(name, num_steps=2, in_channels=1, width=0.25, norm=norm, neuron=neuron)
    x, y = torch.randn(8, 1, 16, 16), torch.arange(8)
    net = sb.attach(model, sample=x)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    losses = []
    for _ in range(5):
        terms = sb.shortcut_loss(net(x), y, coefficient=0.25)
        losses.append(terms.total.item())
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    norms = {type(module) for module in model.modules() if isinstance(module, nn.BatchNorm2d | TemporalEffectiveNorm)}
    assert (TemporalEffectiveNorm in norms) == (norm == "tebn")


def test_the_same_image_at_every_step_is_a_static_one():
    torch.manual_seed(0)
    model = sb.create_model("resnet20", num_steps=3, in_channels=1, width=0.25, norm="tebn").double().eval()
    assert model.expands_at == "neuron"
    x = torch.randn(2, 1, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(model(x), model(x.expand(3, *x.shape)))


def test_tebn_takes_its_first_factors_for_fewer_steps_and_has_none_for_more():
    norm = TemporalEffectiveNorm(2, num_steps=3).eval()
    with torch.no_grad():
        norm.by_step.copy_(torch.tensor([1.0, 2.0, 3.0]))
    x = torch.rand(4, 2, 3, 3)  # two steps of two samples
    norm.num_steps = 2
    torch.testing.assert_close(norm(x), torch.cat([norm.norm(x[:2]), 2 * norm.norm(x[2:])]))
    norm.num_steps = 4
    with pytest.raises(ValueError, match="num_steps=4: norm='tebn' has learned factors for only 3 time steps"):
        norm(x)


def test_tdbn_is_scaled_down_where_currents_are_added_alone():
    made = []

    def neuron(num_steps):
        made.append(sb.LIF(num_steps, threshold=0.5))
        return made[-1]

    for residual, alpha in (
        ("spiking", 1 / math.sqrt(2)),
        ("sew", 1.0),
        ("membrane", 1 / math.sqrt(2)),
        ("plain", 1.0),
    ):
        made.clear()
        model = sb.create_model("resnet20", width=0.25, norm="tdbn", residual=residual, neuron=neuron)
        block = model.network.layer2[0]
        assert block.norm1.weight[0].item() == pytest.approx(0.5)
        assert block.norm2.weight[0].item() == pytest.approx(0.5 * alpha)
        if residual != "plain":
            assert block.shortcut.norm.weight[0].item() == pytest.approx(0.5 * alpha)
        used = sum(isinstance(module, sb.LIF) for module in model.modules())
        assert len(made) == used + 1  # one to read the threshold of


def test_tdbn_needs_a_threshold():
    with pytest.raises(ValueError, match="norm='tdbn' initialises weights by the threshold, which is unknown for ReLU"):
        sb.create_model("resnet20", width=0.25, norm="tdbn", neuron=lambda num_steps: nn.ReLU())

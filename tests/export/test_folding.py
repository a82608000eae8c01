import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import shortback as sb
from shortback.export.folding import affine, fold_norms, folded
from shortback.export.program import deployable
from tests.export.networks import images, network


def test_it_is_the_same_function_in_float64():
    for name, settings in (("resnet20", {}), ("vgg11", {}), ("foreign", {}), ("resnet20", {"residual": "membrane"})):
        model = network(name, **settings).double()
        copied, names = fold_norms(model)
        assert names
        assert all(isinstance(copied.network.get_submodule(n), nn.Identity) for n in names)
        x = images().double()
        torch.testing.assert_close(copied(x), model(x), rtol=1e-9, atol=1e-12)
        assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules())


def test_by_hand():
    conv, norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, eps=0.1)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    nn.init.uniform_(norm.weight)
    norm.eval()
    weight, bias = folded(conv, norm)
    x = torch.randn(4, 2, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(nn.functional.conv2d(x, weight, bias), norm.double()(conv.double()(x)))
    scale, _ = affine(nn.BatchNorm2d(3, affine=False).eval())
    torch.testing.assert_close(scale, torch.full((3,), (1 + 1e-5) ** -0.5, dtype=torch.float64))


def test_layers_called_by_name_are_folded():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act, self.fc = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.act(self.norm(input=self.conv(input=x))).mean([2, 3]))

    assert fold_norms(sb.spikify(ByName(), num_steps=2))[1] == ["norm"]


def test_what_cannot_be_folded_stays():
    """A norm behind an activation, and a convolution that something else uses too."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.act = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()
            self.after, self.fc = nn.BatchNorm2d(3), nn.Linear(3, 2)

        def forward(self, x):
            x = self.conv(x)
            x = self.after(self.act(self.norm(x) + x))
            return self.fc(x.mean([2, 3]))

    model = sb.spikify(Shared(), num_steps=2)
    assert fold_norms(model)[1] == []
    assert "after" not in fold_norms(network("foreign"))[1]


def pruned(conv, norm):
    prune.l1_unstructured(conv, "weight", 0.5)
    prune.random_unstructured(conv, "weight", 0.2)
    prune.l1_unstructured(norm, "weight", 1)


def weight_normed(conv, norm):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(conv)


def spectral_normed(conv, norm):
    nn.utils.spectral_norm(conv)


@pytest.mark.parametrize("change", [pruned, weight_normed, spectral_normed])
def test_weights_that_a_hook_computes_are_baked_in(change):
    model = network("foreign").double()
    conv, norm = model.network.stem[:2]
    change(conv, norm)
    model.eval()
    x = images().double()
    expected = model(x)
    with torch.no_grad():  # as an optimizer does, after which the computed weight is an old one
        for parameter in conv.parameters():
            parameter += 1e-3
    parameters, hooks = list(model.state_dict()), len(conv._forward_pre_hooks)
    copied, names = fold_norms(model)
    assert "stem.1" in names
    assert [n for n, _ in copied.network.stem[0].named_parameters()] == ["bias", "weight"]
    assert not list(copied.network.stem[0].buffers())
    outputs = copied(x)
    torch.testing.assert_close(outputs, model(x), rtol=1e-9, atol=1e-12)
    assert not torch.equal(outputs, expected)
    assert list(model.state_dict()) == parameters
    assert len(conv._forward_pre_hooks) == hooks


def test_pruned_weights_stay_zero_and_masks_stay():
    model = network("foreign")
    conv, fc = model.network.stem[0], model.network.fc
    for layer in (conv, fc):
        prune.l1_unstructured(layer, "weight", 0.5)
    copied = deployable(model)
    for layer, baked in ((conv, copied.network.stem[0]), (fc, copied.network.fc)):
        assert torch.equal(baked.weight == 0, layer.weight_mask == 0)
        assert isinstance(baked.weight, nn.Parameter)
        assert prune.is_pruned(layer)
    assert not prune.is_pruned(copied)


def test_layers_that_share_a_weight_under_masks_of_their_own_keep_these():
    model = network("foreign")
    fc = model.network.fc
    other = nn.Linear(fc.in_features, fc.out_features)
    other.weight = fc.weight
    model.network.other = other
    prune.l1_unstructured(fc, "weight", 0.5)
    prune.random_unstructured(other, "weight", 0.5)
    copied = deployable(model)
    assert torch.equal(copied.network.fc.weight == 0, fc.weight_mask == 0)
    assert torch.equal(copied.network.other.weight == 0, other.weight_mask == 0)


def test_a_layer_that_stores_another_tensor_is_folded():
    """As its last output, kept to look at."""
    model, x = network("foreign"), images()
    conv, norm = model.network.stem[:2]
    conv.seen = conv(x)
    norm.seen = norm(conv.seen)
    expected = model(x)
    copied, names = fold_norms(model)
    assert "stem.1" in names
    torch.testing.assert_close(copied(x), expected, rtol=1e-4, atol=1e-5)


def test_behind_a_weight_that_another_hook_computes_the_norm_stays():
    model = network("foreign")
    conv = model.network.stem[0]
    weight = conv.weight.detach().clone()
    del conv.weight
    conv.register_forward_pre_hook(lambda module, inputs: setattr(module, "weight", weight.sign()))
    x = images()
    expected = model(x)
    copied, names = fold_norms(model)
    assert "stem.1" not in names
    assert names
    torch.testing.assert_close(copied(x), expected, rtol=1e-4, atol=1e-5)


class Held(nn.Module):
    """A norm under several names, and a convolution whose weight is also read by itself."""

    def __init__(self, *, reads=False):
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
        self.stem = nn.Sequential(self.conv, self.norm, self.act)
        self.chain = [self.conv, self.norm, self.act]
        self.fc, self.reads = nn.Linear(4, 2), reads
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        y = self.stem(x)
        if self.reads:
            y = y + nn.functional.conv2d(x, self.conv.weight)
        return self.fc(y.mean((2, 3)))


class Listed(Held):
    def forward(self, x):
        for layer in self.chain:
            x = layer(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("kind", [Held, Listed])
def test_a_norm_is_folded_under_all_its_names(kind):
    torch.manual_seed(0)
    model = sb.spikify(kind(), num_steps=2).double().eval()
    copied, names = fold_norms(model)
    assert len(names) == 1
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(copied(x), model(x), rtol=1e-9, atol=1e-12)


def test_a_convolution_whose_weight_is_read_elsewhere_and_layers_with_hooks_are_not_folded():
    assert fold_norms(sb.spikify(Held(reads=True), num_steps=2))[1] == []
    for layer in ("conv", "norm"):
        model = sb.spikify(Held(), num_steps=2)
        model.network.get_submodule(layer).register_forward_hook(lambda module, inputs, output: output.round())
        assert fold_norms(model)[1] == []


def test_a_norm_with_a_weight_and_no_bias():
    norm = nn.BatchNorm2d(3).eval()
    norm.register_parameter("bias", None)
    nn.init.uniform_(norm.weight)
    scale, shift = affine(norm)
    torch.testing.assert_close(scale, norm.weight.detach().double() * (1 + 1e-5) ** -0.5)
    assert (shift == 0).all()

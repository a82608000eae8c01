"""Counts beside a convolution of ones in float64, and beside NeuroBench."""

import pytest
import torch
from torch import nn

import shortback as sb
from shortback.export.early_exit import by_step
from shortback.export.operations import AC_PJ, MAC_PJ, Operations, count_operations
from tests.export.networks import Foreign, images, network


def by_brute_force(model, x):
    """By layer: dense and effective operations of the batch, and whether its inputs were binary."""
    counts = {}

    def note(name):
        def hook(module, args, output):
            active = (args[0] != 0).double()
            if isinstance(module, nn.Conv2d):
                ones = torch.ones_like(module.weight).double()
                settings = (None, module.stride, module.padding, module.dilation, module.groups)
                sums = [nn.functional.conv2d(v, ones, *settings).sum() for v in (torch.ones_like(active), active)]
            else:
                sums = [torch.tensor(active.numel()) * module.out_features, active.sum() * module.out_features]
            dense, effective, binary = counts.get(name, (0, 0, True))
            is_binary = bool(((args[0] == 0) | (args[0] == 1)).all())
            counts[name] = (dense + float(sums[0]), effective + float(sums[1]), binary and is_binary)

        return hook

    handles = [
        module.register_forward_hook(note(name))
        for name, module in model.network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize(
    ("name", "settings"),
    [("resnet20", {}), ("resnet20", {"residual": "sew"}), ("vgg11", {}), ("foreign", {}), ("resnet20_modified", {})],
    ids=range(5),
)
@pytest.mark.parametrize("num_steps", [None, 3])
def test_counts_are_exact(name, settings, num_steps):
    model, x = network(name, **settings), images(num_steps=num_steps)
    counted, expected = count_operations(model, [x]), by_brute_force(model, x)
    assert {layer.name for layer in counted.layers} == set(expected)
    for layer in counted.layers:
        dense, effective, binary = expected[layer.name]
        assert layer.dense == pytest.approx(dense / 4)
        assert (layer.acs, layer.macs)[not binary] == pytest.approx(effective / 4)
        assert (layer.macs, layer.acs)[not binary] == 0
        assert layer.spiking_input == binary
    if settings.get("residual") == "sew":
        assert any(layer.macs for layer in counted.layers if "conv1" in layer.name and layer.name != "stem.conv1")


@pytest.mark.parametrize("padding", ["same", "valid", (2, 0)])
def test_odd_convolutions(padding):
    conv = nn.Conv2d(4, 6, (3, 5), dilation=(2, 1), padding=padding, groups=2)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), conv, nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 11, 13))
    model = sb.spikify(net, num_steps=2).eval()
    x = 9 * torch.randn(3, 3, 11, 13)
    expected = by_brute_force(model, x)
    for layer in count_operations(model, [x]).layers:
        assert layer.dense * 3 == pytest.approx(expected[layer.name][0])
        assert (layer.macs + layer.acs) * 3 == pytest.approx(expected[layer.name][1])


def test_batches_and_energy():
    model, x = network("resnet20"), images(5)
    whole, parts = count_operations(model, [x]), count_operations(model, [(x[:4], None), (x[4:], None)])
    assert parts.images == 5
    for a, b in zip(whole.layers, parts.layers, strict=True):
        assert a.acs == pytest.approx(b.acs)
        assert a.input_rate == pytest.approx(b.input_rate)
    assert whole.arithmetic_uj == pytest.approx((MAC_PJ * whole.macs + AC_PJ * whole.acs) / 1e6)
    first = whole.layers[0]
    assert (first.name, first.acs) == ("stem.conv1", 0)
    once = sum(layer.dense / (1 if layer.name in ("stem.conv1", "fc") else 3) for layer in whole.layers)
    fc = next(layer for layer in whole.layers if layer.name == "fc")
    assert whole.dense_of_ann == pytest.approx(once - fc.dense + fc.dense / 3)
    assert whole.dense_of_ann == pytest.approx(parts.dense_of_ann)
    assert whole.state_bytes == 4 * sum(s.numel() for s in sb.stream(model)(x[:1])[1].values() if s.ndim == 4)
    assert whole.parameter_bytes == 4 * sum(p.numel() for p in model.parameters())
    assert whole.break_even_rate == 1.0
    assert "By this count, spiking saves energy in a layer at any rate at T=3" in str(whole)
    assert "spiking saves energy in a layer below a rate of 51.1% at T=10" in str(Operations(num_steps=10, images=1))
    assert Operations(num_steps=10, images=1).break_even_rate == pytest.approx(MAC_PJ / AC_PJ / 10)
    assert Operations.from_dict(whole.to_dict()) == whole
    assert "arithmetic only, no data movement" in str(whole)


def test_a_layer_that_is_called_twice_is_counted_twice():
    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.act(self.conv(self.act(self.conv(x)))).mean([2, 3]))

    model = sb.spikify(Again(), num_steps=2)
    conv = count_operations(model, [torch.ones(1, 3, 2, 2)]).layers[0]
    assert conv.dense == 9 * 4 * (2 + 2)


def test_the_network_is_left_as_it_was():
    model, x = network("resnet20").train(), images()
    count_operations(model, [x])
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())


def test_what_is_wrong_is_said():
    model = network("resnet20")
    with pytest.raises(ValueError, match="no neuron is seen to fire in Foreign"):
        count_operations(Foreign(), [images()])
    with pytest.raises(ValueError, match=r"without branches, and this is ShortcutNetwork .*: give net\.model"):
        count_operations(sb.attach(model, at="stages", sample=images(2)), [images()])
    with pytest.raises(ValueError, match=r"num_steps=2: this network has its own, model\.num_steps"):
        count_operations(model, [images()], num_steps=2)
    with pytest.raises(ValueError, match="no image"):
        count_operations(network("resnet20"), [])


def test_layers_called_by_name_are_counted():
    class ByName(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.fc = nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Linear(2, 4)

        def forward(self, x):
            return self.fc(input=self.act(x=self.conv(input=x)).mean([2, 3]))

    model = sb.spikify(ByName(), num_steps=2).eval()
    conv, fc = count_operations(model, [torch.ones(3, 3, 2, 2)]).layers
    assert (conv.name, conv.dense, fc.name, fc.dense) == ("conv", 3 * 2 * 4, "fc", 2 * 2 * 4)
    steps = by_step(model, [(torch.ones(3, 3, 2, 2), torch.zeros(3, dtype=torch.int64))])
    assert steps.macs.sum(0).tolist() == [2 * conv.macs + fc.macs] * 3  # the convolution at both steps


def test_neurobench_counts_the_same():
    layers = pytest.importorskip("neurobench.metrics.utils.layers")
    model, x = network("vgg11", pool="average"), images()
    seen, handles = {}, []
    for name, module in model.network.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):

            def keep(module, args, output, name=name):
                seen[name] = (module, args[0])

            handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        model(x)
        for handle in handles:
            handle.remove()  # it calls the layers itself
        counts = {name: layers.single_layer_MACs(inputs, module) for name, (module, inputs) in seen.items()}
    expected = {name: (float(total) / 4, bool(spiking)) for name, (total, spiking) in counts.items()}
    for layer in count_operations(model, [x]).layers:
        operations, spiking = expected[layer.name]
        assert layer.macs + layer.acs == pytest.approx(operations)
        assert layer.spiking_input == spiking


class Windows(nn.Module):
    """A linear layer on four windows of each image, and a convolution for two sizes of image, before time and in it."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.by_window, self.fc = nn.Conv2d(3, 3, 3), nn.ReLU(), nn.Linear(48, 2), nn.Linear(8, 3)

    def forward(self, x):
        x = nn.functional.pad(self.relu(self.conv(x)), (2, 2, 2, 2))
        x = self.conv(x)  # [., 3, 8, 8]
        windows = x.unflatten(3, (2, 4)).unflatten(2, (2, 4)).permute(0, 2, 4, 1, 3, 5).reshape(-1, 48)
        return self.fc(self.by_window(windows).view(len(x), 8))


def test_an_ann_runs_each_layer_once_however_many_rows_an_image_has():
    model = sb.spikify(Windows(), num_steps=4)
    counted = count_operations(model, [torch.randn(2, 3, 8, 8)])
    by_hand = 36 * 27 * 3 + 64 * 27 * 3 + 4 * 48 * 2 + 8 * 3
    ones = counted.dense_of_ann
    model.num_steps = 1
    assert ones == count_operations(model, [torch.randn(2, 3, 8, 8)]).dense == by_hand


def test_a_tensor_is_not_taken_for_batches_and_empty_batches_are_left_out():
    model = network("foreign")
    for x in (images(), images(num_steps=3)):
        with pytest.raises(ValueError, match=r"pass \[x\]"):
            count_operations(model, x)
    for empty in (images()[:0], images(num_steps=3)[:, :0]):
        assert count_operations(model, [empty, images()]) == count_operations(model, [images()])
    with pytest.raises(ValueError, match="no image"):
        count_operations(model, [images()[:0]])

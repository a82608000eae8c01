"""A layer as one operation against its modules one by one, in outputs, gradients, statistics and what it keeps."""

import copy
import functools
import gc
import weakref

import pytest
import torch
from torch import nn

import shortback as sb
from shortback import ops
from shortback.models.fused import conv_norm_fire
from shortback.neurons import LIF, PLIF
from shortback.ops import packing
from shortback.surrogates import Arctan

pytestmark = pytest.mark.slow

SHAPE = (8, 5, 9, 7)  # T=4, N=2
REFERENCE = {"backend": "reference"}


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def channels_last(x):
    return x.to(memory_format=torch.channels_last)


class OneLayer(nn.Module):
    def __init__(self, neuron, stride=1, **norm):
        super().__init__()
        self.conv = nn.Conv2d(5, 6, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6, **norm)
        self.neuron = neuron
        with torch.no_grad():
            self.conv.weight.copy_(random(6, 5, 3, 3))
            self.norm.weight.copy_(random(6, seed=1).abs() + 0.5)
            self.norm.bias.copy_(random(6, seed=2))
            self.norm.running_mean.copy_(random(6, seed=3))

    def forward(self, x, residual=None):
        return conv_norm_fire(x, conv=self.conv, norm=self.norm, neuron=self.neuron, residual=residual)


def run(layer, x, residual=None, *, fused):
    """Output, statistics and gradients; not fused, the modules are called one by one."""
    layer = copy.deepcopy(layer)
    if not fused:
        layer.neuron.register_forward_hook(lambda module, inputs, output: None)
    x = x.clone().requires_grad_()
    residual = None if residual is None else residual.clone().requires_grad_()
    kernels = ops.num_kernels()
    spikes = layer(x, residual)
    (spikes * random(*spikes.shape, seed=9, dtype=spikes.dtype)).sum().backward()
    results = {name: p.grad for name, p in layer.named_parameters()} | dict(layer.named_buffers())
    results |= {"spikes": spikes.detach(), "x": x.grad, "residual": None if residual is None else residual.grad}
    return {name: value for name, value in results.items() if value is not None}, ops.num_kernels() - kernels


def check(layer, x, residual=None, **tolerances):
    expected, _ = run(layer, x, residual, fused=False)
    assert 0.02 < expected["spikes"].float().mean() < 0.9
    for memory in ("fast", "balanced", "small"):
        layer.neuron.memory = memory
        got, _ = run(layer, x, residual, fused=True)
        assert got.keys() == expected.keys()
        assert torch.equal(got.pop("spikes"), expected["spikes"])
        for name, value in got.items():
            torch.testing.assert_close(value, expected[name], msg=lambda t, n=name: f"{n}: {t}", **tolerances)


NEURONS = {
    "lif": lambda: LIF(4),
    "soft, detached": lambda: LIF(4, reset="soft", detach_reset=True, surrogate=Arctan()),
    "plif": lambda: PLIF(4).double(),
}


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=list(NEURONS))
def test_it_is_what_its_modules_are(neuron):
    layer = channels_last(OneLayer(neuron()).double())
    x, residual = channels_last(random(*SHAPE)), channels_last(random(8, 6, 9, 7, seed=5))
    check(layer, x)
    check(layer, x, residual)
    check(layer.eval(), x, residual)


def test_strides_odd_formats_and_a_cumulative_average():
    layer = channels_last(OneLayer(LIF(4), stride=2, momentum=None).double())
    check(layer, random(*SHAPE))  # a contiguous image into weights in channels-last
    check(layer, channels_last(random(*SHAPE)), random(8, 6, 5, 4, seed=5))


def test_a_static_image():
    layer = channels_last(OneLayer(LIF(4)).double())
    layer.neuron.static_input = True
    check(layer, channels_last(random(3, 5, 9, 7)))


def test_float32():
    check(channels_last(OneLayer(LIF(4))), channels_last(random(*SHAPE, dtype=torch.float32)), rtol=1e-4, atol=1e-4)


def test_autocast_convolves_in_bf16_and_returns_it():
    layer, x = channels_last(OneLayer(LIF(4))), channels_last(random(*SHAPE, dtype=torch.float32)).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        spikes = layer(x)
        expected = layer.conv(x)
    assert spikes.dtype == torch.bfloat16
    spikes.float().sum().backward()
    assert x.grad.dtype == layer.conv.weight.grad.dtype == torch.float32
    # The same current in float32, of the convolution as rounded.
    current = nn.functional.batch_norm(expected.float(), None, None, layer.norm.weight, layer.norm.bias, training=True)
    assert torch.equal(layer.neuron(current), spikes.float())


def network(**settings):
    torch.manual_seed(0)
    model = sb.create_model("resnet20", num_classes=10, num_steps=4, in_channels=3, width=0.5, **settings)
    return channels_last(model)


def saved_bytes(model, x):
    """What is kept of activations for the backward pass, each piece of memory once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(x)
    assert logits.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


def test_memory_by_neuron_and_step():
    x = channels_last(random(8, 3, 32, 32, dtype=torch.float32))
    counts = {}
    model = network(residual="plain").bfloat16()
    for name, module in model.named_modules():
        if isinstance(module, LIF):
            module.register_forward_hook(lambda m, i, output, name=name: counts.update({name: output.numel()}))
    hooked = saved_bytes(model, x.bfloat16())
    neurons = sum(counts.values())
    per_neuron = {"modules": hooked / neurons}
    for memory in ("fast", "balanced", "small"):
        model = network(residual="plain").bfloat16()
        model.memory = memory
        per_neuron[memory] = saved_bytes(model, x.bfloat16()) / neurons
    # In bf16: the convolution's input, its output and the norm's; the first two; bits and the second; bits.
    assert per_neuron["modules"] == pytest.approx(6, rel=0.05)
    assert per_neuron["fast"] == pytest.approx(4, rel=0.05)
    assert 2 < per_neuron["balanced"] < 2.26  # nobody keeps the bits of the last layer
    assert 0.1 < per_neuron["small"] < 0.27  # and the image


def test_nothing_is_kept_or_packed_without_gradients():
    model = network()
    with torch.no_grad():
        layer = model.network.layer1[0]
        spikes = conv_norm_fire(
            channels_last(random(8, 8, 8, 8, dtype=torch.float32)),
            conv=layer.conv1,
            norm=layer.norm1,
            neuron=layer.neuron1,
        )
    assert packing.packed_of(spikes) is None


def test_a_run_compiles_a_fixed_number_of_kernels():
    x, y = channels_last(random(4, 3, 16, 16, dtype=torch.float32)), torch.tensor([0, 1, 2, 3])
    net = sb.attach(network(), at="blocks", sample=x)
    for batch in (4, 4, 3):
        sb.shortcut_loss(net(x[:batch]), y[:batch], coefficient=1.0).total.backward()
        if batch == 4:
            kernels = ops.num_kernels()
    with torch.compiler.set_stance("fail_on_recompile"):
        for size in (16, 24):
            images = channels_last(random(4, 3, size, size, dtype=torch.float32))
            sb.shortcut_loss(net(images), y, coefficient=0.5).total.backward()
    assert ops.num_kernels() == kernels


def test_spikes_changed_in_place_are_kept_as_they_are():
    layer = channels_last(OneLayer(LIF(4)).double())
    first, x = channels_last(nn.Conv2d(5, 5, 1, bias=False).double()), channels_last(random(*SHAPE))

    def gradient(fused):
        source = OneLayer(LIF(4)).double()
        source.conv, source.norm = first, nn.BatchNorm2d(5).double()
        follower = copy.deepcopy(layer)
        if not fused:
            source.neuron.register_forward_hook(lambda *a: None)
            follower.neuron.register_forward_hook(lambda *a: None)
        spikes = channels_last(source)(x.clone().requires_grad_())
        spikes.mul_(3)
        follower(spikes).mul(random(8, 6, 9, 7, seed=8)).sum().backward()
        return follower.conv.weight.grad

    torch.testing.assert_close(gradient(True), gradient(False))


def test_hooks_and_other_modules_are_called_one_by_one():
    layer, x = channels_last(OneLayer(LIF(4)).double()), channels_last(random(*SHAPE))
    seen = []
    layer.norm.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert layer(x).shape == (8, 6, 9, 7)
    assert seen == [(8, 6, 9, 7)]
    layer.norm = nn.GroupNorm(2, 6).double()
    torch.testing.assert_close(layer(x), layer.neuron(layer.norm(layer.conv(x))))


@pytest.mark.parametrize("name", ["conv", "norm", "neuron"])
def test_a_forward_patched_on_an_instance_is_called(name):
    layer, x = channels_last(OneLayer(LIF(4)).double()), channels_last(random(*SHAPE))
    module, seen = getattr(layer, name), []
    usual = module.forward
    module.forward = lambda value: seen.append(value.shape) or usual(value)
    layer(x)
    assert len(seen) == 1


def test_a_batch_that_is_no_multiple_of_the_steps():
    layer = channels_last(OneLayer(LIF(4)).double())
    with pytest.raises(ValueError, match="no multiple"):
        layer(channels_last(random(7, 5, 9, 7)))


def test_one_value_a_channel_cannot_be_normalised():
    layer = channels_last(OneLayer(LIF(1)).double())
    with pytest.raises(ValueError, match="more than 1 value"):
        layer(channels_last(random(1, 5, 1, 1)))


@pytest.mark.parametrize("fused", [False, True])
def test_whoever_asks_is_given_the_spikes(fused):
    seen, layer = [], OneLayer(LIF(4, backend="compiled" if fused else "reference")).double()
    layer.neuron.on_spikes = seen.append
    spikes = layer(channels_last(random(*SHAPE)))
    assert len(seen) == 1
    assert seen[0] is spikes


def test_packed_spikes_are_let_go_of_by_backward():
    """As what is saved for it is, though the loss lives on."""
    layer = OneLayer(LIF(2)).double().to(memory_format=torch.channels_last)
    follow = nn.Conv2d(6, 6, 1, bias=False).double().to(memory_format=torch.channels_last)
    spikes = layer(channels_last(random(4, 5, 6, 6)))
    bits = weakref.ref(packing.packed_of(spikes).bits)
    loss = conv_norm_fire(spikes, conv=follow, norm=nn.BatchNorm2d(6).double(), neuron=LIF(2)).sum()
    del spikes
    assert bits() is not None
    loss.backward()
    gc.collect()
    assert bits() is None


def test_gradients_by_torch_func_and_batched():
    layer = OneLayer(LIF(2)).double().to(memory_format=torch.channels_last)
    x = channels_last(random(4, 5, 6, 6))
    parameters = dict(layer.named_parameters())

    def outputs(parameters):
        buffers = {name: value.clone() for name, value in layer.named_buffers()}
        return torch.func.functional_call(layer, (parameters, buffers), (x,))

    weight = random(4, 6, 6, 6, seed=5)
    expected = torch.autograd.grad(outputs(parameters), list(parameters.values()), weight)
    got = torch.func.grad(lambda p: (outputs(p) * weight).sum())(parameters)
    for a, b in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(a, b)
    many = torch.stack([weight, 2 * weight])
    (batched,) = torch.autograd.grad(outputs(parameters), layer.conv.weight, many, is_grads_batched=True)
    torch.testing.assert_close(batched, torch.stack([expected[0], 2 * expected[0]]))


def test_networks_are_mapped_over():
    """As an ensemble: by transforms of `torch.func` the modules run one by one, where a map knows no memory format."""
    networks = [network(neuron=functools.partial(LIF, threshold=0.3, **REFERENCE)).double().eval() for _ in range(2)]
    for parameter in networks[1].parameters():
        parameter.data.mul_(1.5)
    x = channels_last(random(2, 3, 8, 8))
    weights, buffers = torch.func.stack_module_state(networks)
    one_of = copy.deepcopy(networks[0])
    got = torch.func.vmap(lambda *state: torch.func.functional_call(one_of, state, (x,)))(weights, buffers)
    expected = torch.stack([each(x) for each in networks])
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("memory", ["fast", "balanced", "small"])
def test_a_second_derivative_is_refused(memory):
    layer = channels_last(OneLayer(LIF(4)).double())
    layer.neuron.memory = memory
    spikes = layer(channels_last(random(*SHAPE)))
    with pytest.raises(ValueError, match="create_graph=True"):
        torch.autograd.grad(spikes.sum(), layer.conv.weight, create_graph=True)


@pytest.mark.parametrize("memory", ["fast", "balanced", "small"])
def test_autocast_on_in_the_backward_pass_alone(memory):
    layer, x = channels_last(OneLayer(LIF(4))), channels_last(random(*SHAPE, dtype=torch.float32))
    layer.neuron.memory = memory
    gradients = []
    for enabled in (False, True):
        spikes = layer(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            gradients.append(torch.autograd.grad(spikes.square().sum(), layer.conv.weight)[0])
    assert torch.equal(*gradients)


def test_half_weights_are_normalised_in_float32():
    layer = channels_last(OneLayer(LIF(4))).eval().bfloat16()
    x = channels_last(random(*SHAPE, dtype=torch.bfloat16))
    spikes = layer(x)
    norm, current = layer.norm, layer.conv(x).double()
    mean, var, weight, bias = (
        v.double().view(1, -1, 1, 1) for v in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    exact = copy.deepcopy(layer.neuron).double()((current - mean) * (var + norm.eps).rsqrt() * weight + bias)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.double(), exact)


def test_autocast_leaves_float64_alone():
    layer, x = channels_last(OneLayer(LIF(4)).double()), channels_last(random(*SHAPE))
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.float64
        assert torch.equal(layer.eval()(x), layer(x))
    assert expected.dtype == torch.float64


def test_modes_that_see_every_operation():
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    layer, x = channels_last(OneLayer(LIF(4))), channels_last(random(*SHAPE, dtype=torch.float32))
    expected = layer(x)
    with FlopCounterMode(display=False) as counter:
        spikes = layer(x)
        spikes.sum().backward()
    assert torch.equal(spikes, expected)
    assert counter.get_total_flops() == 3 * 2 * 8 * 6 * 5 * 9 * 9 * 7 - 2 * 8 * 6 * 5 * 9 * 9 * 7  # x has no gradient
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert layer(x).shape == expected.shape


def test_inference_mode_packs_nothing():
    layer, x = channels_last(OneLayer(LIF(4))).eval(), channels_last(random(*SHAPE, dtype=torch.float32))
    layer.neuron.averages_output = True
    with torch.inference_mode():
        spikes = layer(x)
        assert packing.packed_of(spikes) is None
    assert torch.equal(spikes, layer(x))


def test_a_norm_without_a_bias_runs_as_a_module():
    layer, x = channels_last(OneLayer(LIF(4)).double()), channels_last(random(*SHAPE))
    layer.norm.bias = None
    assert torch.equal(layer(x), layer.neuron(layer.norm(layer.conv(x))))


def test_an_image_of_another_dtype_is_refused_as_by_the_modules():
    layer = channels_last(OneLayer(LIF(4)))
    for dtype in (torch.uint8, torch.int64, torch.float64):
        with pytest.raises(RuntimeError):
            layer(channels_last(random(*SHAPE).to(dtype)))


def test_fixed_statistics_may_move_before_the_backward_pass():
    """As where a network evaluates, trains, and both losses are differentiated at once."""
    layer, x = channels_last(OneLayer(LIF(4)).double()).eval(), channels_last(random(*SHAPE))
    (expected,) = torch.autograd.grad(layer(x).sum(), layer.conv.weight)
    spikes = layer(x)
    layer.train()(x)
    (got,) = torch.autograd.grad(spikes.sum(), layer.conv.weight)
    assert torch.equal(got, expected)


def test_a_residual_of_a_neuron_with_other_steps():
    first, second = channels_last(OneLayer(LIF(4, threshold=0.3)).double()), channels_last(OneLayer(LIF(2)).double())
    x = channels_last(random(4, 5, 9, 7))
    outputs = []
    for fused in (True, False):
        if not fused:
            second.neuron.register_forward_hook(lambda module, inputs, output: None)
        outputs.append(second(x, first(x)))
    assert torch.equal(*outputs)

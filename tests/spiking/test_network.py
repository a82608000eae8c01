"""The wrapper that owns time, and networks made spiking: what is replaced, what is refused."""

import copy
import functools
import logging
import pickle
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import timm
import torch
import torch._dynamo
import torchvision
from torch import Tensor, nn

from shortback.models import ResNet
from shortback.neurons import LIF, PLIF, Expand, TimeModule
from shortback.spiking import SpikingNetwork
from shortback.spiking.spikify import spikify

NEURON = functools.partial(LIF, backend="reference", threshold=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine, threads that share so little work wait for each other a hundred times longer."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


class Head(nn.Sequential):
    """Pooling and a linear readout of 4 channels to 3 logits."""

    def __init__(self) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def chain(num_steps: int = 3) -> nn.Sequential:
    """Two convolutions, each followed by a neuron."""
    return nn.Sequential(nn.Conv2d(2, 4, 3), NEURON(num_steps), nn.Conv2d(4, 4, 3), NEURON(num_steps), Head())


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def kinds_of(module: nn.Module) -> Counter[str]:
    """How often each class occurs in a network, by name."""
    return Counter(type(m).__name__ for m in module.modules())


def test_the_readout_is_linear_in_the_mean_rate():
    network = chain()
    model = SpikingNetwork(network, num_steps=3)
    x = images(3, 5, 2, 8, 8)
    rate = network[:4](x.flatten(0, 1)).unflatten(0, (3, 5)).mean(0)
    torch.testing.assert_close(model(x), network[4](rate))


def test_the_readout_of_every_step():
    model = SpikingNetwork(chain(), num_steps=3, readout="steps")
    x = images(3, 5, 2, 8, 8)
    steps = model(x)
    assert steps.shape == (3, 5, 3)
    model.readout = "mean"
    torch.testing.assert_close(model(x), steps.mean(0))
    with pytest.raises(ValueError, match="readout='last': must be one of mean, steps"):
        model.readout = "last"  # type: ignore[assignment]


def test_logits_are_float32_or_more():
    x = images(5, 2, 8, 8)
    model = SpikingNetwork(chain(), num_steps=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(x).dtype is torch.float32
    assert model.bfloat16()(x.bfloat16()).dtype is torch.float32
    assert model.double()(x.double()).dtype is torch.float64


def test_num_steps_is_that_of_everything_inside():
    network = nn.Sequential(nn.Conv2d(2, 4, 3), Expand(9), NEURON(9), Head())
    model = SpikingNetwork(network, num_steps=2)
    assert [m.num_steps for m in model.modules() if isinstance(m, TimeModule)] == [2, 2]
    x = images(5, 2, 8, 8)
    two = model(x)
    model.num_steps = 5
    assert [m.num_steps for m in model.modules() if isinstance(m, TimeModule)] == [5, 5]
    assert model(images(5, 5, 2, 8, 8)).shape == (5, 3)
    model.num_steps = 2
    assert torch.equal(model(x), two)
    for wrong in (0, True):
        with pytest.raises(ValueError, match=f"num_steps={wrong}: must be a whole number, 1 or more"):
            model.num_steps = wrong


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 8, 8), r"input of shape \[2, 8, 8\]: must be \[N, C, H, W\] or \[T, N, C, H, W\]"),
        (
            (4, 5, 2, 8, 8),
            r"sequence of shape \[4, 5, 2, 8, 8\] for num_steps=3: .* with T=3, or set num_steps",
        ),
    ],
)
def test_inputs_of_another_shape_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        SpikingNetwork(chain(), num_steps=3)(torch.zeros(shape))


def test_several_outputs_are_refused():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = chain()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.body(x)
            return logits, logits

    with pytest.raises(ValueError, match="Two returned tuple: must be one tensor"):
        SpikingNetwork(Two(), num_steps=3)(images(5, 2, 8, 8))


@pytest.mark.parametrize("output", [nn.Unflatten(0, (3, -1)), nn.Flatten(0), nn.Flatten(0, 1)], ids=str)
def test_an_output_of_other_rows_is_refused(output):
    """Another split of the rows into steps and images would go through in silence."""
    model = SpikingNetwork(nn.Sequential(chain(), output), num_steps=3)
    for x in (images(6, 2, 8, 8), images(3, 6, 2, 8, 8)):
        with pytest.raises(ValueError, match=r"Sequential returned .* for 3 steps of 6 images: must be \[T\*N, K\]"):
            model(x)


def test_it_copies_and_pickles():
    model = SpikingNetwork(chain(), num_steps=3)
    x = images(5, 2, 8, 8)
    expected = model(x)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), expected)


class Skip(nn.Module):
    """Adds what comes before the first neuron to what comes after it."""

    def __init__(self, *, expand: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.expand = Expand(3) if expand else nn.Identity()
        self.neuron = NEURON(3)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(self.conv(x))
        return self.head(x + self.neuron(x))


class Shared(nn.Module):
    """One neuron in two places, the first and the last, or both of them first."""

    def __init__(self, *, parallel: bool) -> None:
        super().__init__()
        self.conv1, self.conv2, self.neuron, self.head = (
            nn.Conv2d(2, 4, 1),
            nn.Conv2d(2, 4, 1),
            NEURON(3),
            Head(),
        )
        self.conv3 = nn.Conv2d(4, 4, 1)
        self.parallel = parallel

    def forward(self, x: Tensor) -> Tensor:
        first = self.neuron(self.conv1(x))
        return self.head(first + self.neuron(self.conv2(x) if self.parallel else self.conv3(first)))


class Branching(nn.Module):
    """Depends on a value in a way that no symbolic trace can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.body = chain()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x if x.mean() > 0 else -x)


class Counting(nn.Module):
    """A neuron that is no `TimeModule`."""

    def __init__(self, num_steps: int) -> None:
        super().__init__()
        self.T = num_steps

    def forward(self, x: Tensor) -> Tensor:
        return (x.unflatten(0, (self.T, -1)).cumsum(0) > 0.5).to(x.dtype).flatten(0, 1)


class Remembering(nn.Module):
    """Keeps a tensor of its forward, and takes an argument that is seldom given."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.last = chain(), timm.layers.BatchNormAct2d(2, apply_act=False), None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = x * mask
        self.last = self.body(self.norm(x))
        return self.last


@pytest.mark.parametrize(
    ("make", "expands_at", "reason"),
    [
        (chain, "neuron", None),
        (lambda: Skip(expand=True), "neuron", None),
        (lambda: Skip(expand=False), "input", "add joins a value from before the first neurons"),
        (lambda: Shared(parallel=True), "neuron", None),
        (lambda: Shared(parallel=False), "input", "neuron neuron is called both before and after"),
        (lambda: nn.Sequential(nn.Conv2d(2, 4, 3), Head()), "input", "its output comes from no neuron"),
        (Branching, "input", "control flow"),
        (lambda: nn.Sequential(chain()[:4], Counting(3), Head()), "neuron", None),
        (
            lambda: nn.Sequential(nn.Conv2d(2, 2, 1), Counting(3), chain()),
            "input",
            "1 is not a TimeModule, stores a number of time steps, and comes first",
        ),
        (Remembering, "neuron", None),
    ],
)
def test_a_static_image_is_expanded_as_late_as_the_network_allows(make, expands_at, reason, caplog):
    torch.manual_seed(0)
    with caplog.at_level(logging.INFO, logger="shortback"):
        model = SpikingNetwork(make(), num_steps=3)
    assert model.expands_at == expands_at
    assert [reason in message for message in caplog.messages] == ([] if reason is None else [True])

    rows = []
    conv = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    model.eval()
    x = images(6, 2, 8, 8)
    static, sequence, again = model(x), model(x.expand(3, *x.shape)), model(x)
    torch.testing.assert_close(static, sequence, rtol=0, atol=1e-6)
    assert torch.equal(static, again)
    assert rows == [6 if expands_at == "neuron" else 18, 18, 6 if expands_at == "neuron" else 18]


def test_gradients_of_a_static_image_are_those_of_the_sequence():
    torch.manual_seed(0)
    static = SpikingNetwork(chain().double(), num_steps=3)
    sequence = copy.deepcopy(static)
    x = images(5, 2, 8, 8).double()
    static(x).square().sum().backward()
    sequence(x.expand(3, *x.shape)).square().sum().backward()
    for ours, theirs in zip(static.parameters(), sequence.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_a_neuron_put_in_first_expands_the_image_after_an_assignment():
    model = SpikingNetwork(chain(), num_steps=3)
    x = images(3, 2, 8, 8)
    for first in (LIF(2, backend="reference", threshold=0.2), nn.Identity()):
        model.network[0] = nn.Sequential(model.network[0], first)
        model.num_steps = model.num_steps
        assert model.expands_at == "neuron"
        torch.testing.assert_close(model(x), model(x.expand(3, *x.shape)))


def test_finding_the_first_neurons_leaves_no_trace():
    network = Remembering()
    before = copy.deepcopy(network.state_dict())
    assert SpikingNetwork(network, num_steps=3).expands_at == "neuron"
    assert network.last is None
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_network_can_be_wrapped_again():
    network = chain()
    first = SpikingNetwork(network, num_steps=3)
    x = images(5, 2, 8, 8)
    expected = first(x)
    second = SpikingNetwork(network, num_steps=3)
    assert torch.equal(second(x), expected)
    assert torch.equal(second(x.expand(3, *x.shape)), expected)


def test_images_repeated_at_the_input_stay_channels_last():
    model = SpikingNetwork(Skip(expand=False), num_steps=3)
    layouts = []
    model.network.conv.register_forward_pre_hook(
        lambda module, args: layouts.append(args[0].is_contiguous(memory_format=torch.channels_last))
    )
    model(images(5, 2, 8, 8).to(memory_format=torch.channels_last))
    assert layouts == [True]


# What dynamo of torch 2.8 does with an autograd.Function warns of itself.
compiles = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@compiles
def test_one_graph_for_static_images_and_one_for_sequences():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = SpikingNetwork(chain(), num_steps=3)
    graphs = []

    def count_graphs(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, backend=count_graphs)
    static = images(5, 2, 8, 8)
    sequence = images(3, 5, 2, 8, 8)
    for x in (static, static, sequence, sequence, static, sequence):
        torch.testing.assert_close(compiled(x), model(x))
    assert len(graphs) == 2


@compiles
@pytest.mark.parametrize("residual", ["spiking", "membrane"])
def test_compiled_for_training(residual):
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = ResNet(num_blocks=(1, 1), channels=(4, 8), num_steps=2, neuron=NEURON, residual=residual)
    model = SpikingNetwork(network.double(), num_steps=2)
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = images(3, 3, 16, 16).double()
    for run in (compiled, eager):
        run(x).square().sum().backward()
    for ours, theirs in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@compiles
def test_compiled_by_inductor():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = SpikingNetwork(chain(), num_steps=3).eval()
    x = images(5, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x))


@pytest.mark.parametrize(
    ("name", "expands_at", "num_activations"),
    [
        ("resnet18", "neuron", {"ReLU": 9}),
        ("resnet34", "neuron", {"ReLU": 17}),
        ("resnet50", "neuron", {"ReLU": 17}),
        ("vgg11_bn", "neuron", {"ReLU": 10}),
        ("mobilenet_v2", "neuron", {"ReLU6": 35}),
        ("mobilenet_v3_small", "neuron", {"ReLU": 14, "Hardswish": 19}),
        ("convnext_tiny", "input", {"GELU": 18}),
        ("vit_b_16", "input", {"GELU": 12}),
    ],
)
def test_torchvision_networks(name, expands_at, num_activations):
    with torch.device("meta"):
        ann = torchvision.models.get_model(name, num_classes=3)
        before = kinds_of(ann)
        model = spikify(ann, num_steps=2, neuron=NEURON)
    assert model.expands_at == expands_at
    after = kinds_of(model.network)
    assert {name: before[name] for name in num_activations} == num_activations
    assert after == before - Counter(num_activations) + Counter(LIF=sum(num_activations.values()))
    assert kinds_of(ann) == before


@pytest.mark.parametrize(
    ("name", "expands_at", "num_neurons"),
    [
        ("resnet18", "neuron", 17),
        ("mobilenetv3_small_050", "neuron", 33),
        ("convnext_atto", "input", 12),
        ("vit_tiny_patch16_224", "input", 12),
        ("regnety_002", "neuron", 53),
    ],
)
def test_timm_networks(name, expands_at, num_neurons):
    with torch.device("meta"):
        model = spikify(timm.create_model(name, num_classes=3), num_steps=2, neuron=NEURON)
    kinds = kinds_of(model)
    assert model.expands_at == expands_at
    assert kinds["LIF"] == num_neurons
    assert not {"ReLU", "ReLU6", "SiLU", "GELU", "Hardswish"} & set(kinds)


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_a_spikified_network_trains_on_images_and_sequences(source):
    torch.manual_seed(0)
    make = torchvision.models.resnet18 if source == "torchvision" else functools.partial(timm.create_model, "resnet18")
    model = spikify(make(num_classes=3), num_steps=2, neuron=NEURON)
    x = images(2, 3, 32, 32)
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.network.conv1.weight.grad.any()
    model.eval()
    torch.testing.assert_close(model(x), model(x.expand(2, *x.shape)), rtol=0, atol=1e-5)


ACTIVATIONS = [
    *(
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.LeakyReLU(),
        nn.PReLU(),
        nn.RReLU(),
        nn.ELU(),
        nn.CELU(),
    ),
    *(nn.SELU(), nn.GELU(), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Softplus()),
    *(
        timm.layers.Swish(),
        timm.layers.Mish(),
        timm.layers.HardSwish(),
        timm.layers.HardMish(),
        timm.layers.PReLU(),
    ),
    *(timm.layers.GELU(), timm.layers.GELUTanh(), timm.layers.QuickGELU()),
    *(timm.layers.create_act.SwishMe(), timm.layers.create_act.HardSwishMe()),
    type("MyReLU", (nn.ReLU,), {})(),
    type("HSwish", (nn.Module,), {})(),
]
GATES = [
    *(nn.Sigmoid(), nn.Hardsigmoid(), nn.Softmax(1), nn.Tanh(), nn.Hardtanh(), nn.Identity(), nn.Dropout()),
    *(timm.layers.Sigmoid(), timm.layers.HardSigmoid()),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_relu_like_modules_become_neurons(activation):
    model = spikify(nn.Sequential(nn.Conv2d(2, 4, 3), activation, Head()), num_steps=2, neuron=NEURON)
    assert isinstance(model.network[1], LIF)


@pytest.mark.parametrize("gate", GATES, ids=lambda g: type(g).__name__)
def test_other_modules_stay(gate):
    model = spikify(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), gate, Head()), num_steps=2, neuron=NEURON)
    assert type(model.network[2]) is type(gate)


def test_an_activation_within_a_gate_stays():
    class HSigmoid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu6 = nn.ReLU6()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu6(x + 3) / 6

    model = spikify(nn.Sequential(nn.ReLU(), HSigmoid()), num_steps=2, neuron=NEURON)
    assert kinds_of(model) == Counter(SpikingNetwork=1, Sequential=1, LIF=1, HSigmoid=1, ReLU6=1)


def test_what_is_to_be_kept_stays():
    class Biased(nn.Module):
        """Computes a bias from a table by a network of its own, as Swin V2 does."""

        def __init__(self):
            super().__init__()
            self.bias = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
            self.conv, self.act, self.fc = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Linear(3, 2)

        def forward(self, x):
            return self.fc(self.act(self.conv(x)).mean((2, 3)) + self.bias(torch.ones(1, 2)))

    x = torch.randn(2, 3, 4, 4)
    model = spikify(Biased(), num_steps=4, neuron=NEURON, keep=["bias"])
    assert isinstance(model.network.bias[1], nn.ReLU)
    assert isinstance(model.network.act, LIF)
    assert model(x).shape == (2, 2)
    with pytest.raises(ValueError, match=r"with num_steps=4 got 1 rows"):
        spikify(Biased(), num_steps=4, neuron=NEURON)(x)
    with pytest.raises(ValueError, match=r"no such module, 'biases'; the nearest are bias"):
        spikify(Biased(), num_steps=4, keep=["biases"])
    with pytest.raises(ValueError, match=r"give a list of names, such as \['bias'\]"):
        spikify(Biased(), num_steps=4, keep="bias")


def test_the_network_given_is_left_alone():
    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), Head())
    x = images(5, 2, 8, 8)
    expected = ann(x)
    model = spikify(ann, num_steps=2, neuron=NEURON)
    nn.init.zeros_(model.network[0].weight)
    assert isinstance(ann[1], nn.ReLU)
    assert torch.equal(ann(x), expected)


def test_a_shared_activation_becomes_a_shared_neuron():
    relu = nn.ReLU()
    ann = nn.Sequential(nn.Conv2d(2, 4, 1), relu, nn.Conv2d(4, 4, 1), relu, nn.ReLU(), Head())
    network = spikify(ann, num_steps=2, neuron=NEURON).network
    assert network[1] is network[3]
    assert network[1] is not network[4]


def test_the_factory_makes_every_neuron():
    asked = []

    def make(num_steps: int) -> nn.Module:
        asked.append(num_steps)
        return PLIF(num_steps, decay=0.25 * len(asked), backend="reference")

    ann = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), Head())
    model = spikify(ann.eval(), num_steps=7, neuron=make)
    assert asked == [7, 7]
    assert [m.leak().item() for m in model.modules() if isinstance(m, PLIF)] == pytest.approx([0.25, 0.5])
    assert not any(m.training for m in model.modules())
    assert isinstance(spikify(ann, num_steps=7).network[1], LIF)


def test_a_foreign_neuron_expands_at_the_input():
    model = spikify(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), Head()), num_steps=3, neuron=Counting)
    assert model.expands_at == "input"
    assert model(images(5, 2, 8, 8)).shape == (5, 3)


def test_networks_with_nothing_to_replace_and_compiled_ones_are_refused():
    with pytest.raises(ValueError, match="Sequential holds no activation to replace"):
        spikify(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Sigmoid()), num_steps=2)
    with pytest.raises(ValueError, match=r"takes the network before torch\.compile"):
        spikify(torch.compile(nn.Sequential(nn.ReLU())), num_steps=2)
    with pytest.raises(ValueError, match="num_steps=0: must be a whole number, 1 or more"):
        spikify(nn.Sequential(nn.ReLU()), num_steps=0)
    with pytest.raises(ValueError, match=r"neuron=.*must be callable with num_steps"):
        spikify(nn.Sequential(nn.ReLU()), num_steps=2, neuron=LIF(2))
    with pytest.raises(ValueError, match=r"spikify\(\) got function: .* a network"):
        spikify(torchvision.models.resnet18, num_steps=2)


def test_a_foreign_neuron_with_another_number_of_steps_is_told(caplog):
    network = nn.Sequential(chain()[:4], Counting(3), Head())
    model = SpikingNetwork(network, num_steps=3)
    assert "number of its own" not in caplog.text
    model.num_steps = 6
    assert "num_steps=6: 1 is a Counting, not a TimeModule, and has a number of its own, 3" in caplog.text
    caplog.clear()
    network[1].T = 6
    model.num_steps = 6
    assert caplog.text == ""
    assert model(images(5, 2, 8, 8)).shape == (5, 3)


def test_a_library_neuron_with_another_number_of_steps_is_refused():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")

    class Unfolding(nn.Module):
        def __init__(self, num_steps):
            super().__init__()
            self.T, self.neuron = num_steps, neuron.LIFNode(step_mode="m")

        def forward(self, x):
            self.neuron.reset()
            return self.neuron(x.unflatten(0, (self.T, -1))).flatten(0, 1)

    with pytest.raises(ValueError, match=r"num_steps=6: 1 is a Unfolding, not a TimeModule, and has a number of .* 3"):
        SpikingNetwork(nn.Sequential(chain()[:4], Unfolding(3), Head()), num_steps=6)
    model = SpikingNetwork(nn.Sequential(chain()[:4], Unfolding(3), Head()), num_steps=3)
    with pytest.raises(ValueError, match="num_steps=6"):
        model.num_steps = 6
    assert {m.num_steps for m in model.modules() if isinstance(m, TimeModule)} == {3} == {model.num_steps}


def test_a_hook_that_changes_an_output_is_part_of_the_network():
    block = nn.Sequential(NEURON(3), nn.Conv2d(4, 4, 3, padding=1))
    block.register_forward_hook(lambda module, inputs, output: output + inputs[0])
    model = SpikingNetwork(nn.Sequential(nn.Conv2d(2, 4, 3), block, NEURON(3), Head()), num_steps=3).eval()
    x = images(5, 2, 8, 8)
    torch.testing.assert_close(model(x), model(x.expand(3, *x.shape)))


def test_data_parallel_inside_is_refused():
    model = SpikingNetwork(chain(), num_steps=3)
    model.network = nn.DataParallel(model.network)
    with pytest.raises(ValueError, match=r"wrap the model itself, nn.DataParallel\(model\)"):
        model(images(5, 2, 8, 8))

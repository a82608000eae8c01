import dataclasses
import functools
import math
import threading

import pytest
import torch

import shortback as sb
from shortback.surrogates import Triangular
from tests.health.test_probe import assert_same, snapshot


def network(name="resnet20", **neuron):
    torch.manual_seed(0)
    factory = functools.partial(sb.LIF, **{"backend": "reference", **neuron})
    return sb.create_model(name, width=0.5, num_steps=2, in_channels=1, residual="plain", neuron=factory)


def test_a_healthy_network_gets_no_advice(make_network, batch):
    report = sb.diagnose(make_network(), *batch)
    assert isinstance(report, sb.GradientReport)
    assert report.judgement.verdict == "healthy"
    assert report.suggestions == []


@pytest.mark.parametrize("attached", [False, True])
def test_advice_is_tried_and_changes_nothing(batch, attached):
    x, y = batch
    net = network(threshold=50.0)
    net = sb.attach(net, at="stages", sample=x) if attached else net
    before = snapshot(net)
    report = sb.diagnose(net, x, y)
    assert_same(before, snapshot(net))
    assert report.judgement.verdict == "dead"
    best = report.suggestions[0]
    assert best.helps
    assert best.settings == ("model.neuron.threshold=1",)
    assert best.before.verdict == "dead"
    # What was said of the change holds where it is made.
    for neuron in [m for m in net.modules() if isinstance(m, sb.LIF)]:
        neuron.dynamics = type(neuron.dynamics)(threshold=1.0, surrogate=neuron.dynamics.surrogate)
    again = sb.diagnose(net, x, y, suggest=False).judgement
    assert (again.verdict, again.effective_depth) == (best.after.verdict, best.after.effective_depth)
    settings = {setting for s in report.suggestions for setting in s.settings}
    assert ("branches.at=blocks" in settings) != attached
    assert ("branches.start=4" in settings) == attached


def test_a_wider_surrogate_is_found_for_one_that_explodes(batch):
    report = sb.diagnose(network("resnet32", surrogate=Triangular(half_width=0.4)), *batch)
    assert report.judgement.verdict == "exploding"
    wide = next(s for s in report.suggestions if s.settings == ("model.neuron.surrogate.half_width=0.8",))
    assert wide.helps
    surrogate = wide.python.removeprefix("sb.LIF(..., surrogate=").removesuffix(")")
    assert eval(surrogate, {"Triangular": Triangular}) == Triangular(half_width=0.8)
    assert wide.after.slope < wide.before.slope


def test_only_what_changes_something_is_tried(batch):
    unit = sb.diagnose(network(threshold=50.0, surrogate=Triangular(half_width=1.0)), *batch)
    assert not any("scale" in s.options for s in unit.suggestions)
    text = str(unit)
    assert "tried on the first" in text
    assert "(sb.LIF(..., threshold=1); with a recipe -s model.neuron.threshold=1)" in text


def test_branches_are_tried_where_vanilla_training_has_none(batch):
    """With a coefficient of 0, as vanilla training has it: the branches tried still carry a gradient."""
    narrow = Triangular(half_width=0.4, scale="peak")
    report = sb.diagnose(network("resnet32", surrogate=narrow), *batch, coefficient=0.0)
    assert report.judgement.verdict == "vanishing"
    branches = next(s for s in report.suggestions if s.what == "branches at blocks")
    assert branches.settings == ("method=evolutionary", "branches.combine=logits", "branches.at=blocks")
    assert branches.after.slope > branches.before.slope
    assert f"-s {branches.settings[0]} -s {branches.settings[1]}" in str(report)
    by_hand = "net = sb.attach(net, at='blocks', sample=x), combine='logits', coefficient from 0.25 to 0"
    assert f"({by_hand}; with a recipe " in str(report)


def test_a_coefficient_of_0_is_not_scaled(batch):
    x, y = batch
    net = sb.attach(network(threshold=50.0), at="stages", sample=x)
    for combine, usual in (("logits", "0.25"), ("additive", "1"), ("convex", "1")):
        loss = sb.ShortcutLoss(combine=combine)
        tried = {s.settings for s in sb.diagnose(net, x, y, coefficient=0.0, loss=loss).suggestions}
        assert {s for s in tried if s[0].startswith("branches")} == {(f"branches.start={usual}",)}
    tried = {
        s.settings for s in sb.diagnose(net, x, y, coefficient=0.5, loss=sb.ShortcutLoss(combine="convex")).suggestions
    }
    assert {s for s in tried if s[0].startswith("branches")} == {("branches.start=0.125",)}


def test_a_network_that_cannot_be_copied_is_measured_all_the_same():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), sb.LIF(1, threshold=100.0, backend="reference"))
    net.append(torch.nn.Linear(8, 5))
    net[0].lock = threading.Lock()
    report = sb.diagnose(net, torch.randn(4, 6), torch.arange(4))
    assert report.judgement.verdict == "dead"
    assert report.suggestions == []
    assert "no changes were tried: the network cannot be copied: cannot pickle" in str(report)


def test_a_loss_of_one_output_is_the_main_one(batch):
    x, y = batch
    net = sb.attach(network(), at="stages", sample=x)
    by_class = sb.diagnose(net, x, y, loss=torch.nn.CrossEntropyLoss(), suggest=False)
    assert by_class.measurement.loss == pytest.approx(sb.diagnose(net, x, y, suggest=False).measurement.loss)


class Fires(torch.nn.Module):
    """A neuron of a class that nobody knows, for which the network is run before it is measured."""

    def forward(self, x):
        return (x > 0).to(x.dtype) + (x - x.detach())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: (255 * x).byte(), r"the batch is uint8, .* pass x\.float\(\) / 255"),
        (lambda x: x[:, :1], "has 1 channels, and the first convolution takes 3"),
        (lambda x: x.permute(0, 2, 3, 1), "has its channels last"),
    ],
)
def test_what_is_wrong_with_a_batch_of_a_foreign_network(change, message):
    layers = [torch.nn.Conv2d(3, 4, 3), Fires(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match=message):
        sb.diagnose(net, change(torch.rand(8, 3, 9, 9)), torch.arange(8) % 4)


def test_what_a_network_does_not_allow_is_said():
    torch.manual_seed(0)
    neuron = sb.LIF(1, threshold=9.0, backend="reference")
    net = torch.nn.Sequential(torch.nn.Flatten(), neuron, torch.nn.Linear(64, 5))
    report = sb.diagnose(net, torch.randn(4, 1, 8, 8), torch.arange(4))
    scaled, *branches = report.impossible
    assert scaled.startswith("weights scaled to a firing rate of 10 % in each layer: no layer of a known kind")
    assert [line.partition(":")[0] for line in branches] == ["branches at blocks", "branches at stages"]
    assert f"\n  not possible: {scaled}" in str(report)
    assert "not possible: branches at stages: " in report._repr_html_()
    assert report.to_dict()["impossible"] == report.impossible
    assert any(suggestion.helps for suggestion in report.suggestions)  # a lower threshold


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gauss(sb.surrogates.Surrogate):
    sigma: float = 0.4

    @property
    def _shape_area(self):
        return self.sigma * math.sqrt(2 * math.pi)

    def _shape(self, z):
        return torch.exp(-z * z / (2 * self.sigma**2))


@pytest.mark.parametrize(
    ("surrogate", "wider"),
    [
        (Gauss(), None),
        (
            sb.surrogates.TanhWindow(half_width=0.5, slope=3.0),
            "half_width 1, slope 1.5 in place of half_width 0.5, slope 3",
        ),
        (sb.surrogates.Arctan(slope=2.0), "slope 1 in place of slope 2"),
        (sb.surrogates.Rectangular(half_width=0.5), "half_width 1 in place of half_width 0.5"),
    ],
)
def test_every_surrogate_is_widened_if_it_is_known_how(surrogate, wider):
    torch.manual_seed(0)
    neuron = sb.LIF(1, surrogate=surrogate, threshold=50.0, backend="reference")
    net = torch.nn.Sequential(torch.nn.Linear(5, 6), neuron, torch.nn.Linear(6, 4))
    report = sb.diagnose(net, torch.randn(8, 5), torch.arange(8) % 4)
    told = [suggestion.what for suggestion in report.suggestions if "twice as wide" in suggestion.what]
    assert told == ([] if wider is None else [f"{wider}, a surrogate twice as wide"])

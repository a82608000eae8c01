import dataclasses
import json
import math

import pytest
import torch

import shortback as sb
from shortback.health import GradientReport, Suggestion, judge, measure
from shortback.health.report import plain, slopes
from shortback.losses import ShortcutLoss


def report_of(net, x, y):
    return GradientReport.of(measure(net, x, y, loss=ShortcutLoss(), coefficient=1.0))


def test_the_words_and_numbers_are_all_there(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    report = report_of(net, x, y)
    text = str(report)
    assert text.startswith(f"{report.judgement.verdict}: ")
    for layer in report.layers:
        (line,) = [line for line in text.splitlines() if line.startswith(f"{layer.name} ")]
        assert f"{layer.relative:.2e}" in line
        assert f"{layer.branch_share:.2f}" in line
    for neuron in report.neurons:
        (line,) = [line for line in text.splitlines() if line.startswith(f"{neuron.name} ")]
        assert f"{neuron.firing_rate:.1%}" in line
    assert "by the loss of the main output alone" in text


def test_main_only_is_the_judgement_without_branches(make_network, batch):
    x, y = batch
    model = make_network()
    vanilla = report_of(model, x, y)
    assert vanilla.main_only is None
    shortcut = report_of(sb.attach(model, at="stages", sample=x), x, y)
    assert shortcut.main_only.effective_depth == vanilla.judgement.effective_depth
    assert abs(shortcut.main_only.slope - vanilla.judgement.slope) < 1e-3


def test_it_is_plain_json(make_network, batch):
    report = report_of(make_network(), *batch)
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["judgement"]["verdict"] == report.judgement.verdict
    rows = content["measurement"]["layers"]
    assert [row["relative"] for row in rows] == [layer.relative for layer in report.layers]
    assert rows[-1]["factor"] is None
    assert plain({"a": [float("nan"), 1.0, float("inf")]}) == {"a": [None, 1.0, None]}


def test_a_suggestion_helps_where_the_network_gets_better(make_network, batch):
    x, y = batch
    good = judge(measure(make_network(), x, y, loss=ShortcutLoss(), coefficient=0.0))
    assert good.verdict == "healthy"
    assert not Suggestion("nothing", (), good, good).helps


def test_without_a_slope_none_is_printed(make_network, batch):
    x, y = batch
    report = report_of(make_network(), x, y)
    silent = dataclasses.replace(report.judgement, slope=float("nan"))
    text = "\n".join(dataclasses.replace(report, judgement=silent, main_only=silent).headline())
    assert "nan" not in text
    assert "decades" not in text
    assert slopes(Suggestion("x", (), silent, dataclasses.replace(silent, slope=0.5))) == "none → +0.500"


def test_a_coefficient_of_0_is_said_to_make_two_lines_one(make_network, batch):
    x, y = batch
    net, said = make_network(), "so their lines in the plots coincide"
    for network, coefficient, is_there in ((net, 0.0, False), (sb.attach(net, at="stages", sample=x), 0.0, True)):
        measured = measure(network, x, y, loss=ShortcutLoss(), coefficient=coefficient)
        assert (said in "\n".join(GradientReport.of(measured).headline())) == is_there
    assert said not in "\n".join(report_of(network, x, y).headline())


def test_a_notebook_shows_it_as_tables_and_pictures(make_network, batch):
    net = sb.attach(make_network(residual="plain"), at="stages", sample=batch[0])
    report = sb.diagnose(net, *batch, suggest=False)
    html = report._repr_html_()
    assert html.count("<table>") == 2
    assert f"on {len(batch[1])} samples: effective depth" in html
    assert "<td>stem.conv1</td>" in html
    assert [type(figure).__name__ for figure in report.plot()] == ["Figure"] * len(report.plots)
    out = net.train()(batch[0])
    assert out._repr_html_().count("<tr>") == 2 + len(net.places)
    assert "<td>total</td>" in sb.shortcut_loss(out, batch[1], coefficient=0.25)._repr_html_()


def test_what_was_tried_says_where_and_whether_it_helps(make_network, batch):
    report = report_of(make_network(), *batch)
    healthy, worse = report.judgement, dataclasses.replace(report.judgement, verdict="vanishing", effective_depth=3)
    helps = Suggestion("a change", ("a=1",), worse, healthy)
    for suggestions, ending in (
        ([helps], "the most helpful first"),
        ([dataclasses.replace(helps, after=worse)], "none helps"),
    ):
        said = dataclasses.replace(report, suggestions=suggestions, num_tried_on=16).how_tried()
        assert said.startswith("tried on the first 16 samples (before: vanishing, effective depth 3)")
        assert said.endswith(ending)


@pytest.mark.parametrize(("value", "count"), [(math.nan, "1 NaN and 0"), (math.inf, "0 NaN and 1")])
def test_main_only_counts_the_numbers_of_its_own_gradient(make_network, batch, value, count):
    """A gradient that is not finite through a branch is none of vanilla training."""
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    torch.nn.init.constant_(next(net.heads.parameters()), math.nan)
    report = report_of(net, x, y)
    assert report.judgement.verdict == "not finite"
    assert report.main_only.verdict == "healthy"
    layers = [
        dataclasses.replace(report.layers[0], vanilla_nan=int(math.isnan(value)), vanilla_inf=int(value == math.inf))
    ]
    vanilla = GradientReport.of(dataclasses.replace(report.measurement, layers=layers)).main_only
    assert vanilla.verdict == "not finite"
    assert vanilla.reason.startswith(count)


def test_without_numbers_by_branch_there_is_no_judgement_on_the_main_output(make_network, batch):
    x, y = batch
    net = sb.attach(make_network(), at="stages", sample=x)
    whole = report_of(net, x, y)
    report = GradientReport.of(measure(net, x, y, loss=ShortcutLoss(), coefficient=1.0, by_branch=False))
    assert report.judgement == whole.judgement
    assert report.main_only is None
    assert f"{report.layers[0].branch_share:.2f}" in str(report)
    lines = [line.get_label() for line in report.plots["Gradient by layer"].axes[0].get_lines()]
    assert lines == ["shortcut (whole loss)", "branches"]


def test_layers_whose_weights_are_0_are_named_as_not_counted(make_network, batch):
    net = make_network(residual="membrane")
    torch.nn.init.zeros_(net.network.fc.weight)
    report = report_of(net, *batch)
    assert "not counted among the layers, since their weights are all 0: fc" in report.headline()
    assert report.judgement.num_layers == len(report.layers) - 1

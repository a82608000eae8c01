"""The result of a diagnosis: the measurement, the judgement on it, and the changes that were tried."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING, Any

from shortback.health.activity import NeuronActivity
from shortback.health.judgement import Judgement, factors, judge
from shortback.health.measurement import MAIN, LayerGradient, Measurement
from shortback.words import quantity

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_NEURONS = (
    "no spiking neurons were seen: if lines of code in a forward fire, make them a module of their own, whose spikes "
    "can be counted"
)


@dataclass(frozen=True)
class Suggestion:
    """A change that was tried, and its effect.

    Attributes:
        what: the change in words.
        settings: the change in a recipe, as `key=value` strings.
        before: the judgement on the samples it was tried on, without the change.
        after: the judgement on the same samples, with the change.
        python: the change in Python.
    """

    what: str
    settings: tuple[str, ...]
    before: Judgement
    after: Judgement
    python: str = ""

    @property
    def options(self) -> str:
        """The command-line options that make the change."""
        return " ".join(f"-s {setting}" for setting in self.settings)

    @property
    def how(self) -> str:
        """How to make the change, in Python and on the command line."""
        return f"{self.python}; with a recipe {self.options}" if self.python else self.options

    @property
    def helps(self) -> bool:
        """Whether the change made the network healthy, or increased its effective depth."""
        if self.before.verdict == "healthy":
            return False
        return self.after.verdict == "healthy" or self.after.effective_depth > self.before.effective_depth


@dataclass(frozen=True)
class GradientReport:
    """The gradient health of a network on one batch; `print` it, or read its attributes.

    Attributes:
        measurement: the layers, neurons and losses.
        judgement: healthy, vanishing, exploding, dead, saturated or not finite, and where the problem starts.
        suggestions: the changes that were tried, the most helpful first.
        num_tried_on: how many of the batch's first samples they were tried on.
        main_only: if branches carry a gradient, the judgement on the main output's own loss, as
            vanilla training would see it; None if that was not measured.
        not_tried: why no changes could be tried; None if they were tried or not asked for.
        impossible: each change that this network does not allow, and why.
    """

    measurement: Measurement
    judgement: Judgement
    suggestions: list[Suggestion] = field(default_factory=list)
    main_only: Judgement | None = None
    num_tried_on: int = 0
    not_tried: str | None = None
    impossible: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, measurement: Measurement) -> GradientReport:
        """Make the report on a measurement, without suggestions."""
        vanilla = _vanilla(measurement) if _has_branches(measurement) else None
        return cls(measurement, judge(measurement), main_only=None if vanilla is None else judge(vanilla))

    @property
    def layers(self) -> list[LayerGradient]:
        return self.measurement.layers

    @property
    def neurons(self) -> list[NeuronActivity]:
        return self.measurement.neurons

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, with derived ones: each layer's relative gradient, factor and branch share."""
        content = asdict(self)
        layers = zip(content["measurement"]["layers"], self.layers, factors(self.layers), strict=True)
        for row, layer, factor in layers:
            row |= {"relative": layer.relative, "factor": factor, "branch_share": layer.branch_share}
        for row, suggestion in zip(content["suggestions"], self.suggestions, strict=True):
            row["helps"] = suggestion.helps
        return plain(content)

    @property
    def plots(self) -> dict[str, Figure]:
        """The report's matplotlib figures by title, drawn by `shortback.health.plots`."""
        from shortback.health import plots

        return {title: figure for title, (figure, _) in plots.pictures(self.measurement).items()}

    def __str__(self) -> str:
        neurons = _aligned(*neuron_rows(self)) if self.neurons else [_NO_NEURONS]
        return "\n".join([*self.headline(), "", *_aligned(*layer_rows(self)), "", *neurons, *self._advice()])

    def headline(self) -> list[str]:
        """The judgement in a few lines."""
        judgement = self.judgement
        lines = [
            f"{judgement.verdict}: {judgement.reason}",
            f"on {quantity(self.measurement.num_samples, 'sample')}: effective depth {judgement.effective_depth} of "
            f"{quantity(judgement.num_layers, 'layer')}{_slope(judgement, ' towards the input')}",
        ]
        if without := [layer.name for layer in self.layers if not layer.weight_norm]:
            lines.append(f"not counted among the layers, since their weights are all 0: {', '.join(without)}")
        if self.main_only is not None:
            alone = self.main_only
            lines.append(
                f"by the loss of the main output alone: {alone.verdict}, effective depth {alone.effective_depth}"
                f"{_slope(alone)}"
            )
        if self.measurement.coefficient == 0 and len(self.measurement.losses) > 1:
            lines.append(
                "the coefficient of the branches is 0, as at the end of evolutionary training: the whole loss is the "
                "main output's, so their lines in the plots coincide"
            )
        if (silent := self.measurement.silent_in_eval) is not None:
            lines.append(why_constant_in_eval(silent))
        if self.measurement.remembers:
            lines.append(
                "the same batch gave two outputs, and the second was measured: the network remembers something "
                "from one batch to the next. That is fine for a counter or an average; neurons need a method "
                "reset(), or sb.register_reset(TheirClass, function)"
            )
        wrong = [neuron for neuron in self.neurons if neuron.not_binary]
        lines += [f"{neuron.name}: {neuron.not_binary} outputs are neither 0 nor 1" for neuron in wrong]
        if self.measurement.unused:
            lines.append(f"without a gradient because no output leads to them: {', '.join(self.measurement.unused)}")
        if self.neurons and self.measurement.unseen:
            unseen = ", ".join(self.measurement.unseen)
            lines.append(f"not measured because their forward is not called, as in a loop over step(): {unseen}")
        if self.not_tried is not None:
            lines.append(f"no changes were tried: {self.not_tried}")
        return lines

    def how_tried(self) -> str:
        """On which samples and from which verdict the suggestions were tried, and whether any helps."""
        if not self.suggestions:
            return "nothing could be tried"
        before = self.suggestions[0].before
        helps = "the most helpful first" if any(s.helps for s in self.suggestions) else "none helps"
        on = f"on the first {self.num_tried_on} samples" if self.num_tried_on else "on the first samples"
        return f"tried {on} (before: {before.verdict}, effective depth {before.effective_depth}), {helps}"

    def plot(self) -> list[Figure]:
        """The report's matplotlib figures, which a notebook displays; `plots` has them by title."""
        return list(self.plots.values())

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        headings = "".join(f"<p>{escape(line)}</p>" for line in self.headline())
        tables = [layer_rows(self), *([neuron_rows(self)] if self.neurons else [])]
        advice = "".join(f"<li>{escape(line.strip())}</li>" for line in self._advice()[2:])
        return (
            headings
            + "".join(map(_html_table, tables))
            + (advice and f"<p>{escape(self.how_tried())}</p><ul>{advice}</ul>")
        )

    def _advice(self) -> list[str]:
        if not self.suggestions and not self.impossible:
            return []
        lines = ["", self.how_tried()]
        for suggestion in self.suggestions:
            before, after = suggestion.before, suggestion.after
            lines.append(
                f"  {'+' if suggestion.helps else '-'} {suggestion.what}: {after.verdict}, effective depth "
                f"{before.effective_depth} → {after.effective_depth}, slope {slopes(suggestion)}"
                f"   ({suggestion.how})"
            )
        return lines + [f"  not possible: {line}" for line in self.impossible]


def _slope(judgement: Judgement, towards: str = "") -> str:
    """The slope in words; empty if fewer than two layers have a gradient."""
    return "" if math.isnan(judgement.slope) else f", {judgement.slope:+.3f} decades a layer{towards}"


def slopes(suggestion: Suggestion) -> str:
    """The slopes before and after, `none` if fewer than two layers have a gradient."""
    both = suggestion.before.slope, suggestion.after.slope
    return " → ".join("none" if math.isnan(slope) else f"{slope:+.3f}" for slope in both)


def why_constant_in_eval(silent: str) -> str:
    """Explain why all samples get the same output in `eval()`, given a layer of neurons that is silent only there."""
    return (
        f"in eval(), as at inference, all samples get the same output: {silent} fires in training and never there, "
        "since the running statistics of the norms lag behind; train longer, or raise their momentum"
    )


def plain(value: Any) -> Any:
    """Replace every number that is not finite, for which JSON has no value, by None in nested dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _has_branches(measurement: Measurement) -> bool:
    """Whether a gradient comes through branches."""
    return any(layer.branch_norm for layer in measurement.layers)


def _vanilla(measurement: Measurement) -> Measurement | None:
    """The measurement with the gradients of vanilla training in place of those of the whole loss, if measured."""
    layers = []
    for layer in measurement.layers:
        norm, zero, nan, inf = layer.vanilla_norm, layer.vanilla_zero, layer.vanilla_nan, layer.vanilla_inf
        if norm is None or zero is None or nan is None or inf is None:
            return None
        layers.append(replace(layer, gradient_norm=norm, num_zero=zero, num_nan=nan, num_inf=inf))
    return replace(measurement, layers=layers)


def layer_rows(report: GradientReport) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of text for every layer from the input to the output."""
    has_branches = _has_branches(report.measurement)
    headings = ["layer", "gradient", "/ weight", "factor", "zero"]
    headings += ["main", "branches", "share", "cosine"] if has_branches else []
    rows = []
    for layer, factor in zip(report.layers, factors(report.layers), strict=True):
        row = [
            layer.name,
            f"{layer.gradient_norm:.2e}",
            f"{layer.relative:.2e}",
            "" if factor is None else f"{factor:.3g}",
            f"{layer.num_zero / layer.num_weights:.0%}",
        ]
        if has_branches:
            cosine = "" if layer.cosine is None else f"{layer.cosine:.2f}"
            row += [f"{layer.terms[MAIN]:.2e}", f"{layer.branch_norm:.2e}", f"{layer.branch_share:.2f}", cosine]
        rows.append(row)
    return headings, rows


def neuron_rows(report: GradientReport) -> tuple[list[str], list[list[str]]]:
    """Headings, and a row of text for every layer of neurons from the input to the output."""
    headings = ["neurons", "rate", "dead", "always", "window", "gradient by step"]
    rows = [
        [
            neuron.name,
            f"{neuron.firing_rate:.1%}",
            _share(neuron.dead),
            _share(neuron.saturated),
            "" if neuron.in_window is None else f"{neuron.in_window:.1%}",
            " ".join(f"{norm:.1e}" for norm in neuron.gradient_by_step) or ("?" if math.isnan(neuron.dead) else ""),
        ]
        for neuron in report.neurons
    ]
    return headings, rows


def _share(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:.0%}"


def _aligned(headings: list[str], rows: list[list[str]]) -> list[str]:
    """Format a table as lines of text, with names aligned left and numbers right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in (headings, *rows)
    ]


def _html_table(table: tuple[list[str], list[list[str]]]) -> str:
    headings, rows = table
    lines = [
        "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"
        for tag, row in [("th", headings), *(("td", row) for row in rows)]
    ]
    return f"<table>{''.join(lines)}</table>"

"""What a diagnosis found, as a value: numbers, the judgement on them and what was tried against it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from shortback.health.activity import NeuronActivity
from shortback.health.judgement import Judgement, factors, judge
from shortback.health.probe import MAIN, LayerGradient, Measurement


@dataclass(frozen=True)
class Suggestion:
    """A change, and what it did on the batch.

    Attributes:
        what: in words.
        setting: the same in a recipe, `key=value`; empty where a recipe has no such setting.
        before, after: judgements on the same samples.
    """

    what: str
    setting: str
    before: Judgement
    after: Judgement

    @property
    def helps(self) -> bool:
        """Whether it made the network healthy, or brought more layers near the median."""
        if self.before.verdict == "healthy":
            return False
        return self.after.verdict == "healthy" or self.after.effective_depth > self.before.effective_depth


@dataclass(frozen=True)
class GradientReport:
    """The gradient health of a network on one batch; `print` it, or take its parts.

    Attributes:
        measurement: layers, neurons and losses.
        judgement: healthy, vanishing, exploding, dead, saturated or not finite, and where it starts.
        suggestions: what was tried against it, the best first.
        main_only: the judgement on the gradient through the main output alone, where there are branches: what vanilla
            training would see.
    """

    measurement: Measurement
    judgement: Judgement
    suggestions: list[Suggestion] = field(default_factory=list)
    main_only: Judgement | None = None

    @classmethod
    def of(cls, measurement: Measurement) -> GradientReport:
        """The report on a measurement, without suggestions."""
        has_branches = any(layer.branch_norm for layer in measurement.layers)
        return cls(measurement, judge(measurement), main_only=judge(_main_part(measurement)) if has_branches else None)

    @property
    def layers(self) -> list[LayerGradient]:
        return self.measurement.layers

    @property
    def neurons(self) -> list[NeuronActivity]:
        return self.measurement.neurons

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, and what is derived: relative gradient, factor and branch share of every layer."""
        content = asdict(self)
        layers = zip(content["measurement"]["layers"], self.layers, factors(self.layers), strict=True)
        for row, layer, factor in layers:
            row |= {"relative": layer.relative, "factor": factor, "branch_share": layer.branch_share}
        for row, suggestion in zip(content["suggestions"], self.suggestions, strict=True):
            row["helps"] = suggestion.helps
        return plain(content)

    def __str__(self) -> str:
        return "\n".join([*self.headline(), "", *_layer_table(self), "", *_neuron_table(self), *self._advice()])

    def headline(self) -> list[str]:
        """The judgement in a few lines."""
        judgement = self.judgement
        lines = [
            f"{judgement.verdict}: {judgement.reason}",
            f"effective depth {judgement.effective_depth} of {judgement.num_layers} layers, "
            f"{judgement.slope:+.3f} decades a layer towards the input",
        ]
        if self.main_only is not None:
            alone = self.main_only
            lines.append(
                f"through the main output alone: {alone.verdict}, effective depth {alone.effective_depth}, "
                f"{alone.slope:+.3f} decades a layer"
            )
        wrong = [neuron for neuron in self.neurons if neuron.not_binary]
        lines += [f"{neuron.name}: {neuron.not_binary} outputs are neither 0 nor 1" for neuron in wrong]
        if self.measurement.unused:
            lines.append(f"without a gradient because no output depends on them: {', '.join(self.measurement.unused)}")
        return lines

    def _advice(self) -> list[str]:
        if not self.suggestions:
            return []
        lines = ["", "tried on this batch, the best first"]
        for suggestion in self.suggestions:
            before, after = suggestion.before, suggestion.after
            lines.append(
                f"  {'+' if suggestion.helps else '-'} {suggestion.what}: {after.verdict}, effective depth "
                f"{before.effective_depth} > {after.effective_depth}, "
                f"slope {before.slope:+.3f} > {after.slope:+.3f}"
                + (f"   (-s {suggestion.setting})" if suggestion.setting else "")
            )
        return lines


def plain(value: Any) -> Any:
    """A tree of plain values with None for every number that is not finite, which JSON does not know."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _main_part(measurement: Measurement) -> Measurement:
    """The measurement as it would be without branches."""
    layers = []
    for layer in measurement.layers:
        norm = layer.terms[MAIN]
        zero = layer.num_zero if norm else layer.num_weights
        layers.append(replace(layer, gradient_norm=norm, num_zero=zero))
    return replace(measurement, layers=layers)


def _layer_table(report: GradientReport) -> list[str]:
    layers, has_branches = report.layers, report.main_only is not None
    width = max(len(layer.name) for layer in layers)
    head = f"{'layer':{width}}  {'gradient':>9}  {'/ weight':>9}  {'factor':>8}  {'zero':>5}"
    lines = [head + (f"  {'main':>9}  {'branches':>9}  {'share':>5}  {'cosine':>6}" if has_branches else "")]
    for layer, factor in zip(layers, factors(layers), strict=True):
        line = (
            f"{layer.name:{width}}  {layer.gradient_norm:9.2e}  {layer.relative:9.2e}  "
            f"{'' if factor is None else format(factor, '8.3g'):>8}  {layer.num_zero / layer.num_weights:5.0%}"
        )
        if has_branches:
            cosine = "" if layer.cosine is None else format(layer.cosine, "6.2f")
            line += f"  {layer.terms[MAIN]:9.2e}  {layer.branch_norm:9.2e}  {layer.branch_share:5.2f}  {cosine:>6}"
        lines.append(line)
    return lines


def _neuron_table(report: GradientReport) -> list[str]:
    if not report.neurons:
        return ["no spiking neurons were seen"]
    width = max(len(neuron.name) for neuron in report.neurons)
    head = f"{'neurons':{width}}  {'rate':>6}  {'dead':>5}  {'always':>6}  {'window':>6}"
    lines = [f"{head}  gradient reaching the spikes, by step"]
    for neuron in report.neurons:
        window = "" if neuron.in_window is None else format(neuron.in_window, "6.1%")
        steps = " ".join(f"{norm:.1e}" for norm in neuron.gradient_by_step)
        lines.append(
            f"{neuron.name:{width}}  {neuron.firing_rate:6.1%}  {neuron.dead:5.0%}  {neuron.saturated:6.0%}  "
            f"{window:>6}  {steps}"
        )
    return lines

"""The page of a diagnosis: the judgement, what was tried, pictures and tables."""

from __future__ import annotations

import json
from pathlib import Path

from shortback.checkup import Checkup
from shortback.health import GradientReport, plots
from shortback.health.judgement import factors
from shortback.pages import Section, Table, write_page
from shortback.runs import RunFolder


def write_gradient_page(path: Path, checkup: Checkup) -> None:
    """The page of a diagnosis, with the pictures of the run where it is of one."""
    report = checkup.report
    tables = {"Gradient by layer": _layers(report), "What the neurons do": _neurons(report)}
    sections = [
        Section(title, figures=[picture], tables=[tables[title]] if title in tables else [])
        for title, picture in plots.pictures(report).items()
    ]
    if report.suggestions:
        sections.insert(0, Section("What was tried on this batch", tables=[_suggestions(report)]))
    if checkup.run is not None:
        text = RunFolder(checkup.run).metrics.read_text()
        rows = [json.loads(line) for line in text.splitlines()]
        figures = [(figure, title) for title, figure in plots.through_training(rows).items()]
        sections.append(Section("Through training", figures=figures))
    first, *rest = report.headline()
    sections.insert(0, Section("Judgement", text=rest))
    write_page(path, title=f"Gradient health: {checkup.title}", lead=first, sections=sections, data=report.to_dict())


def _layers(report: GradientReport) -> Table:
    has_branches = report.main_only is not None
    headings = ["layer", "gradient", "over weight", "factor", "zero"]
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
            row += [f"{layer.terms['main']:.2e}", f"{layer.branch_norm:.2e}", f"{layer.branch_share:.2f}", cosine]
        rows.append(row)
    return Table("Every layer, from the input to the output", headings, rows)


def _neurons(report: GradientReport) -> Table:
    headings = ["neurons", "firing rate", "dead", "saturated", "in window", "gradient by step"]
    rows = [
        [
            neuron.name,
            f"{neuron.firing_rate:.1%}",
            f"{neuron.dead:.0%}",
            f"{neuron.saturated:.0%}",
            "" if neuron.in_window is None else f"{neuron.in_window:.1%}",
            " ".join(f"{norm:.1e}" for norm in neuron.gradient_by_step),
        ]
        for neuron in report.neurons
    ]
    return Table("Every layer of neurons, from the input to the output", headings, rows)


def _suggestions(report: GradientReport) -> Table:
    headings = ["change", "helps", "verdict", "effective depth", "slope", "in a recipe"]
    rows = [
        [
            s.what,
            "yes" if s.helps else "no",
            f"{s.before.verdict} > {s.after.verdict}",
            f"{s.before.effective_depth} > {s.after.effective_depth}",
            f"{s.before.slope:+.3f} > {s.after.slope:+.3f}",
            f"-s {s.setting}" if s.setting else "",
        ]
        for s in report.suggestions
    ]
    return Table("Each on a copy of the network, on the first samples, before > after", headings, rows)

"""Write the HTML page of a diagnosis: the judgement, what was tried, pictures and tables."""

from __future__ import annotations

from pathlib import Path

from shortback.health import GradientReport
from shortback.health.plots import pictures
from shortback.health.report import layer_rows, neuron_rows, slopes
from shortback.reports.html import Section, Table, write_page
from shortback.reports.plots import through_training
from shortback.runs.diagnose import Checkup
from shortback.runs.folder import RunFolder
from shortback.training.rows import read_rows


def write_gradient_page(path: Path, checkup: Checkup) -> None:
    """Write the page of a diagnosis, with pictures of the training if it is that of a run."""
    report = checkup.report
    order = "from the input to the output"
    tables = {
        "Gradient by layer": Table(f"Every layer, {order}", *layer_rows(report)),
        "What the neurons do": Table(f"Every layer of neurons, {order}", *neuron_rows(report)),
    }
    sections = [
        Section(title, figures=[picture], tables=[tables[title]] if title in tables else [])
        for title, picture in pictures(report.measurement).items()
    ]
    if report.suggestions or report.impossible:
        text = [report.how_tried(), *(f"Not possible: {line}" for line in report.impossible)]
        tables = [_suggestions(report)] if report.suggestions else []
        sections.insert(0, Section("What was tried", text=text, tables=tables))
    if checkup.run is not None:
        rows = read_rows(RunFolder(checkup.run).metrics)
        figures = [(figure, title) for title, figure in through_training(rows).items()]
        sections.append(Section("Through training", figures=figures))
    first, *rest = report.headline()
    sections.insert(0, Section("Judgement", text=rest))
    write_page(path, title=f"Gradient health: {checkup.title}", lead=first, sections=sections, data=report.to_dict())


def _suggestions(report: GradientReport) -> Table:
    headings = ["change", "helps", "verdict", "effective depth", "slope", "in a recipe"]
    rows = [
        [
            s.what,
            "yes" if s.helps else "no",
            f"{s.before.verdict} → {s.after.verdict}",
            f"{s.before.effective_depth} → {s.after.effective_depth}",
            slopes(s),
            s.options,
        ]
        for s in report.suggestions
    ]
    return Table("Each on a copy of the network, before → after", headings, rows)

"""Self-contained HTML pages: one file with its style and its pictures, for any screen, light or dark."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from shortback.files import write_text
from shortback.health.plots import INK


@dataclass
class Table:
    """Rows of text under headings; `caption` says what they are."""

    caption: str
    headings: Sequence[str]
    rows: Iterable[Sequence[str]]


@dataclass
class Section:
    """A part of a page: a title, lines of text, pictures with descriptions of what they show, and tables."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[Figure, str]] = ()
    tables: Sequence[Table] = ()


def write_page(path: Path, *, title: str, lead: str, sections: Sequence[Section], data: Mapping[str, Any]) -> None:
    """Write a page. `data` is embedded as JSON, under the id `data`, for readers who want the numbers."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shortback", "reports/templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # HTML escapes have no meaning in a script element; without a literal "<", no text can end it.
    numbers = Markup(json.dumps(data).replace("<", "\\u003c"))
    page = environment.get_template("page.html").render(
        title=title, lead=lead, sections=sections, data=numbers, svg=_svg
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)


def _svg(figure: Figure, description: str) -> Markup:
    """A picture as inline SVG that scales with the page and is drawn in the page's text colour."""
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # the same in every picture, but ids must be unique in a page
    label = Markup.escape(description)
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))

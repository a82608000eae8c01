"""Write the lists of docs/api/settings.md and docs/api/commands.md, each between `<!-- name -->` and `<!-- end -->`.

python scripts/reference.py
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from shortback.cli import app
from shortback.recipes.settings import REQUIRED, all_settings

API = Path(__file__).resolve().parents[1] / "docs" / "api"
PAGES = (API / "settings.md", API / "commands.md")


def render(text: str) -> str:
    """Return the page with its lists updated."""

    def fill(match: re.Match[str]) -> str:
        return f"<!-- {match[1]} -->\n" + "\n".join(LISTS[match[1]]()) + "\n\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", fill, text, flags=re.DOTALL)


def list_settings() -> Iterator[str]:
    """A table for each section of a recipe."""
    for section, settings in itertools.groupby(all_settings(), key=lambda setting: setting.section):
        yield from ("", f"## {section or 'At the top'}", "")
        yield from ("| setting | meaning | values | default |", "|---|---|---|---|")
        for key, means, takes, default in settings:
            yield f"| `{key}` | {means} | {takes} | {default if default == REQUIRED else f'`{default}`'} |"


def list_commands() -> Iterator[str]:
    """Every command with its arguments and options, from the command line itself."""
    yield from _commands(typer.main.get_command(app), "shortback")


def _commands(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for inner in command.commands.values():
            yield from _commands(inner, f"{name} {inner.name}")
        return
    said = (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")
    yield from ("", f"## {name.removeprefix('shortback ')}", "", said)
    if command.params:
        yield from ("", "| | |", "|---|---|")
    for parameter in command.params:
        names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name
        text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "or")
        yield f"| `{names}` | {text} |"


LISTS = {"settings": list_settings, "commands": list_commands}

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text()))

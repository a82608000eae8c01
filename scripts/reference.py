"""The settings of recipes and the commands, as tables: what the site's two pages of these are made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shortback.cli import app
from shortback.recipes.schema import Recipe, Variant

WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "`true` or `false`",
    Path: "a path",
    type(None): "`null`",
    Variant: "a variant: `name`, `method`, `combine`, `coefficient`, `start`",
}


def list_settings(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """A table for each section of a recipe, from its schema."""
    nested = []
    yield from ("", f"## {prefix or 'At the top'}", "", "| key | what it takes | default |", "|---|---|---|")
    for name, field in section.model_fields.items():
        inner = next((a for a in (field.annotation, *get_args(field.annotation)) if _is_section(a)), None)
        if inner is not None:
            nested.append((inner, f"{prefix}.{name}" if prefix else name))
            continue
        default = "must be said" if field.is_required() else f"`{_plain(field.default)}`"
        yield f"| `{f'{prefix}.' if prefix else ''}{name}` | {_choices(field)} | {default} |"
    for inner, key in nested:
        yield from list_settings(inner, key)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not Variant


def _plain(value: Any) -> str:
    return yaml.safe_dump(list(value) if isinstance(value, tuple) else value, default_flow_style=True).split("\n")[0]


def _choices(field: FieldInfo) -> str:
    """The words that a setting takes, or the kind of number."""
    return f"{_said(field.annotation)} {_limits(field.metadata)}".strip()


def _limits(metadata: Iterable[Any]) -> str:
    """Bounds of a number in words."""
    words = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below"}
    found = [re.match(r"(Ge|Gt|Le|Lt)\(\w+=(.*)\)$", str(each)) for each in metadata]
    return ", ".join(f"{words[match[1]]} {match[2]}" for match in found if match)


def _said(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return f"{_said(inner)} {_limits(m for each in metadata for m in getattr(each, 'metadata', [each]))}".strip()
    if get_args(annotation):
        words = list(dict.fromkeys(_said(each) for each in get_args(annotation) if each is not ...))
        return f"a list of: {', '.join(words)}" if get_origin(annotation) in (list, tuple) else ", or ".join(words)
    return WORDS[annotation]


def list_commands() -> Iterator[str]:
    """Every command with its arguments and options, from the command line itself."""
    yield from _commands(typer.main.get_command(app), "shortback")


def _commands(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for inner in command.commands.values():
            yield from _commands(inner, f"{name} {inner.name}")
        return
    said = (command.help or "").strip().partition("\n\n")[0].replace("\n", " ")
    yield from ("", f"## {name.removeprefix('shortback ')}", "", said, "", "| | |", "|---|---|")
    for parameter in command.params:
        names = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name
        text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "or")
        yield f"| `{names}` | {text} |"

"""Describe every setting of a recipe from its schema: what it is, what it takes, and its default."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shortback.recipes.schema import Recipe, Variant
from shortback.recipes.yaml_text import write_yaml

REQUIRED = "required"
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "`true` or `false`",
    Path: "a path",
    type(None): "`null`",
    Variant: "a variant: `name`, `method`, `combine`, `coefficient`, `start`",
}


class Setting(NamedTuple):
    """A setting and its description; words of YAML are in backticks, except in `default`."""

    key: str
    means: str
    takes: str
    default: str

    @property
    def section(self) -> str:
        """The dotted key without its last part; empty for a top-level setting."""
        return self.key.rpartition(".")[0]


def all_settings(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[Setting]:
    """Yield the settings of a section: first its own, then those of each section nested in it."""
    nested = []
    for name, field in section.model_fields.items():
        inner = next((a for a in (field.annotation, *get_args(field.annotation)) if _is_section(a)), None)
        if inner is not None:
            nested.append((inner, f"{prefix}{name}."))
            continue
        default = REQUIRED if field.is_required() else _plain(field.default)
        takes = f"{_said(field.annotation)} {_limits(field.metadata)}".strip()
        yield Setting(f"{prefix}{name}", field.description or "", takes, default)
    for inner, key in nested:
        yield from all_settings(inner, key)


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation is not Variant


def _plain(value: Any) -> str:
    return write_yaml(list(value) if isinstance(value, tuple) else value, default_flow_style=True).split("\n")[0]


def _limits(metadata: Iterable[Any]) -> str:
    """The bounds of a number in words."""
    words = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below"}
    found = [re.match(r"(Ge|Gt|Le|Lt)\(\w+=(.*)\)$", str(each)) for each in metadata]
    return ", ".join(f"{words[match[1]]} {match[2]}" for match in found if match)


def _said(annotation: Any) -> str:
    """What a setting takes, in words."""
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(annotation))
    if get_origin(annotation) is Annotated:
        inner, *metadata = get_args(annotation)
        return f"{_said(inner)} {_limits(m for each in metadata for m in _parts(each))}".strip()
    if get_args(annotation):
        words = list(dict.fromkeys(_said(each) for each in get_args(annotation) if each is not ...))
        return f"a list of: {', '.join(words)}" if get_origin(annotation) in (list, tuple) else ", or ".join(words)
    return _WORDS[annotation]


def _parts(each: Any) -> list[Any]:
    return each.metadata if isinstance(each, FieldInfo) else [each]

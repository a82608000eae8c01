"""Strict YAML: 1e-2 is a number; duplicate keys and excessive nesting are errors; no error quotes the file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from shortback.errors import UserError

MAX_BYTES = 1_000_000
_ODD = re.compile(r"[-+]?0[0-9_]|.*:")  # 010 would be 8, and 1:30 would be 90
_KEY = re.compile(r"^[\w.-]{1,80}$")


class RecipeError(UserError):
    """A recipe that cannot be used; the message lists everything that is wrong with it."""


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, of which PyYAML would silently keep the last, and malformed values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key.value, str):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value[:80]!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) and _ODD.match(node.value):
            problem = f"{node.value[:20]} is read as another number in YAML 1.1 (base 8 or 60): write it in base 10"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError) as error:  # a date in month 99, or `!!int x`
            kind = node.tag.rpartition(":")[2]
            problem = f"a value is not a valid {kind}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


class _Dumper(yaml.SafeDumper):
    """Quotes strings that `_Loader` would read as numbers."""


# PyYAML follows YAML 1.1, in which a number with an exponent needs a dot and a sign.
_EXPONENT = re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
for _either in (_Loader, _Dumper):
    _either.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def write_yaml(value: Any, **style: Any) -> str:
    """The YAML of a value, which `read_yaml` reads back as the same; `style` is passed to `yaml.dump`."""
    return yaml.dump(value, Dumper=_Dumper, **{"sort_keys": False, **style})


def read_yaml(text: str, *, name: str) -> Any:
    """Parse YAML.

    Raises:
        RecipeError: invalid YAML, with the line; a duplicate key; nesting too deep for Python.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{name}{where}: not valid YAML, {error.problem}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: not valid YAML, {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise RecipeError(f"{name}: nested too deeply for a recipe") from None


def read_keys(text: str, *, name: str) -> dict[str, Any]:
    """Parse YAML whose top level is keys.

    Raises:
        RecipeError: `read_yaml` refuses the text, or its top level is something else.
    """
    tree = read_yaml(text, name=name)
    if not isinstance(tree, dict) or not all(isinstance(key, str) and _KEY.match(key) for key in tree):
        raise RecipeError(f"{name} is not a recipe: its top level must be keys such as model and train")
    return tree


def text_of(path: Path) -> str:
    """The content of a text file.

    Raises:
        RecipeError: the file is not text, or far too long for a recipe.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path} is not a recipe: it is longer than {MAX_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is not a recipe: it is not a text file") from None

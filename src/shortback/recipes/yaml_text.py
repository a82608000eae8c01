"""Read YAML as people mean it: no key twice, no depths that end Python, and no line of a file in an error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from shortback.errors import UserError

MAX_BYTES = 1_000_000
_KEY = re.compile(r"^[\w.-]{1,80}$")


class RecipeError(UserError):
    """A recipe that cannot be used; the message lists everything that is wrong with it."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise yaml.MarkedYAMLError(problem=f"{key.value[:80]!r} is there twice", problem_mark=key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str, *, name: str) -> Any:
    """The value of a text.

    Raises:
        RecipeError: it is no YAML, and in which line; a key twice; lists within lists without end.
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
    """The tree of keys that a text holds.

    Raises:
        RecipeError: what `read_yaml` refuses, and what holds something else.
    """
    tree = read_yaml(text, name=name)
    if not isinstance(tree, dict) or not all(isinstance(key, str) and _KEY.match(key) for key in tree):
        raise RecipeError(f"{name} is not a recipe: its top level must be keys such as model and train")
    return tree


def text_of(path: Path) -> str:
    """What a text file holds.

    Raises:
        RecipeError: it is no text, or far too long for a recipe.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise RecipeError(f"{path} is no recipe: it is longer than {MAX_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise RecipeError(f"{path} is no recipe: it is not a text file") from None

"""Describe in words what pydantic found wrong with a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from shortback.choices import nearest
from shortback.recipes.fields import Section, section_in
from shortback.recipes.schema import Recipe


def in_words(problems: Iterable[Any]) -> list[str]:
    """One line per wrong key, even where pydantic reports a problem for each type that the key could have."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for problem in problems:
        loc = problem["loc"]
        unknown = problem["type"] == "extra_forbidden"
        keys = (*_place(loc[:-1])[0], str(loc[-1])) if unknown else _place(loc)[0]
        found.setdefault(keys, []).append(problem)
    # If a value may be a word or a list, report what is wrong within the list.
    outer = {keys[:length] for keys in found for length in range(len(keys))}
    return [_describe(keys, those) for keys, those in found.items() if keys not in outer]


def _describe(keys: tuple[str, ...], problems: Sequence[Any]) -> str:
    first, *others = dict.fromkeys(map(_message, problems))
    message = ", or ".join([first, *(other.removeprefix("Input should be ") for other in others)])
    problem = problems[0]
    if problem["type"] not in ("extra_forbidden", "missing") and not isinstance(problem["input"], dict):
        message += f", got {problem['input']!r}{_near(problems)}"
    return f"  {'.'.join(keys)}: {message}" if keys else f"  {message}"


def _near(problems: Iterable[Any]) -> str:
    """The end of a message: the allowed words most like the given one; empty if there are none."""
    wrong = [
        problem for problem in problems if problem["type"] == "literal_error" and isinstance(problem["input"], str)
    ]
    known = [word for problem in wrong for word in re.findall("'([^']*)'", problem["ctx"]["expected"])]
    near = nearest(wrong[0]["input"], known, or_else="") if wrong else ""
    return near and f"; the nearest are {near}"


def _message(problem: Any) -> str:
    kind, loc = problem["type"], problem["loc"]
    if kind == "extra_forbidden":
        section = _place(loc[:-1])[1]
        assert section is not None
        wrong, known = str(loc[-1]), list(section.model_fields)
        elsewhere = [key for key in _all_keys(Recipe) if key.rpartition(".")[2] == wrong]
        near = ", ".join(filter(None, [*elsewhere, nearest(wrong, known, or_else="")]))
        return f"unknown key; {f'the nearest are {near}' if near else 'known are ' + ', '.join(known)}"
    if kind == "missing":
        return "is missing"
    section = _place(loc)[1]
    if kind == "model_type" and section is not None:
        return f"has keys of its own: {', '.join(section.model_fields)}"
    if kind == "path_type":
        return "Input should be a path"
    if kind == "tuple_type":
        return "Input should be a list"
    return problem["msg"].removeprefix("Value error, ")


def _place(loc: tuple[str | int, ...]) -> tuple[tuple[str, ...], type[Section] | None]:
    """The keys that lead to a mistake, and the section they lead to, if it is one.

    Pydantic's names for members of a union are left out: they are not keys of a recipe.
    """
    section: type[Section] | None = Recipe
    keys: list[str] = []
    for before, part in zip((None, *loc), loc, strict=False):
        if isinstance(part, int):
            keys.append(str(part))
        elif section is not None and part in section.model_fields and not isinstance(before, int):
            keys.append(part)
            section = section_in(section.model_fields[part].annotation)
    return tuple(keys), section


def _all_keys(section: type[Section]) -> Iterator[str]:
    for key, field in section.model_fields.items():
        inner = section_in(field.annotation)
        if inner is None or key == "compare":  # a list, whose items have no keys to set them by
            yield key
        else:
            yield from (f"{key}.{name}" for name in _all_keys(inner))

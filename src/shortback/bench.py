"""Find the benchmarks, in the checkout or in the wheel, and run one."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from shortback.errors import UserError

PACKAGE = Path(__file__).parent


def folder() -> Path:
    """The folder of the benchmarks.

    Raises:
        ValueError: there is none.
    """
    for place in (PACKAGE / "_benchmarks", PACKAGE.parents[1] / "benchmarks"):
        if (place / "harness.py").is_file():
            return place
    raise UserError("the benchmarks were not installed with the package: run them from a checkout")


def questions() -> dict[str, str]:
    """Every benchmark by name, with the question that it answers."""
    found = {}
    for file in sorted(folder().glob("*.py")):
        tree = ast.parse(file.read_text())
        if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body):
            found[file.stem] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def run(name: str, argv: Sequence[str]) -> None:
    """Run a benchmark with its own options `argv`.

    Raises:
        ValueError: there is no such benchmark, or a library it compares with is missing.
    """
    known = questions()
    if name not in known:
        raise UserError(f"{name!r} is not a benchmark: choose one of {', '.join(known)}")
    sys.path.insert(0, str(folder()))
    try:
        importlib.import_module(name).main(argv)
    except ModuleNotFoundError as error:
        raise UserError(str(error)) from error

"""The direction of dependencies, the length of files, and what an import costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shortback

ROOT = Path(shortback.__file__).parent
CORE = {
    "surrogates": set(),
    "combine": set(),
    "losses": {"combine"},
    "schedules": {"combine"},
    "activations": set(),
    "undisturbed": set(),
    "pointwise": set(),
    "libraries": set(),
    "states": {"libraries"},
    "layout": set(),
    "layer_calls": {"layout"},
    "detection": {"layer_calls", "layout", "states", "undisturbed"},
    "ops": {"surrogates"},
    "neurons": {"ops", "surrogates"},
    "layer": {"ops", "neurons", "pointwise"},
    "spiking": {"neurons", "activations", "ops"},
    "models": {"layer", "spiking", "neurons", "surrogates", "pointwise"},
    "health": {
        *("spiking", "neurons", "losses", "ops", "states", "undisturbed"),
        *("layout", "detection", "libraries", "pointwise"),
    },
    "shortcuts": {
        *("spiking", "neurons", "losses", "health", "states", "undisturbed"),
        *("layer_calls", "layout", "detection", "libraries", "activations", "pointwise"),
    },
    "diagnosis": {"combine", "health", "shortcuts", "losses", "neurons", "surrogates"},
}
DRAWS = {"plots.py": {"matplotlib"}, "report.py": {"matplotlib"}}
FILES = sorted(ROOT.rglob("*.py"))


def imports(file):
    """Every module a file imports, and the names it imports from shortback itself, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "shortback":
                yield from (f"shortback.{alias.name}" for alias in node.names)
            else:
                yield node.module


def part(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", [f for f in FILES if part(f) in CORE], ids=lambda f: str(f.relative_to(ROOT)))
def test_core_modules_import_torch_and_what_is_below_them(file):
    allowed = CORE[part(file)] | {part(file)}
    for module in imports(file):
        top, *rest = module.split(".")
        if top == "shortback":
            assert rest[0] in allowed, f"{file.name} imports {module}"
        else:
            known = {"torch"} | DRAWS.get(file.name, set()) | sys.stdlib_module_names
            assert top in known, f"{file.name} imports {module}"


@pytest.mark.parametrize("file", [f for f in FILES if part(f) in ("data", "training")], ids=lambda f: f.name)
def test_data_and_training_never_see_a_recipe(file):
    above = {"shortback.config", "shortback.build", "shortback.cli", "shortback.runs", "shortback.experiment"}
    assert not above & set(imports(file))
    assert not {"pydantic", "yaml", "typer"} & {module.split(".")[0] for module in imports(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_are_short(file):
    assert len(file.read_text().splitlines()) <= 310


def test_every_module_has_a_test():
    tests = {f.name for f in Path(__file__).parent.rglob("test_*.py")}
    # Covered by the tests of what uses them: the whole of a run, or of its package.
    within = {"__main__", "comparison", "network", "evaluate", "signals", "state", "layers", "residual"}
    within |= {"execution", "plan", "gradient_page", "measurement", "schema", "outcome", "combine"}
    modules = {f.stem for f in FILES if f.stem != "__init__"} - within
    assert {f"test_{name}.py" for name in modules} <= tests


def test_public_names_are_all_there():
    source = (ROOT / "__init__.py").read_text()
    typed = set(re.findall(r" as (\w+)$", source, flags=re.MULTILINE))
    assert typed == set(shortback.__all__)
    for name in shortback.__all__:
        assert getattr(shortback, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = shortback.nothing


@pytest.mark.parametrize("module", ["shortback", "shortback.cli"])
def test_importing_it_does_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

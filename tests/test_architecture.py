"""The direction of dependencies, the length of files, and what an import costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shortback

ROOT = Path(shortback.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
TESTS = Path(__file__).parent
MODULES = {
    "shortback." + ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in FILES
}

# What stands in one row does not import each other, and imports from the rows above it alone. A folder is one entry.
LAYERS = (
    ("errors",),
    ("files", "processes", "torch_private", "allocator", "words", "foreign", "copies", "extras"),
    ("choices", "targets", "outputs"),
    ("surrogates", "losses", "schedules"),
    ("ops",),
    ("neurons",),
    ("spiking", "inspection"),
    ("models",),
    ("health",),
    ("shortcuts", "initialization"),
    ("diagnosis", "data", "export"),
    ("training",),
    ("recipes",),
    ("reports",),
    ("runs",),
    ("ablation",),
    ("bench", "console"),
    ("cli_deploy", "cli_recipes"),
    ("cli",),
    ("__init__", "__main__"),
)
LEVEL = {name: level for level, row in enumerate(LAYERS) for name in row}

# Beyond Python itself: what a layer may import, and all after it too.
LIBRARIES = {
    "torch_private": {"torch"},
    "shortcuts": {"safetensors"},
    "data": {"torchvision", "numpy", "PIL", "rich", "filelock", "simplejpeg", "h5py", "aedat", "evt3"},
    "export": {"nir", "nirtorch", "onnxruntime", "numpy"},
    "training": {"IPython", "lightning_fabric", "matplotlib", "mlflow", "wandb"},
    "recipes": {"pydantic", "yaml"},
    "reports": {"matplotlib", "jinja2", "markupsafe"},
    "runs": {"huggingface_hub"},
    "ablation": {"scipy"},
    "console": {"typer"},
}
DRAWS = {"health/plots.py", "health/report.py"}  # with matplotlib, where a picture is asked for


def imports(file):
    """Every module a file imports, wherever in it: what is taken from a package is that module of it, if it is one."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if node.module == "shortback" or inner in MODULES else node.module


def path_of(file):
    return file.relative_to(ROOT).as_posix()


def entry(file):
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_package_has_a_place_in_the_order():
    assert {entry(file) for file in FILES} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_imports_go_down(file):
    own = entry(file)
    for module in imports(file):
        top, *rest = module.split(".")
        if top == "shortback" and rest and rest[0] != own and not rest[0].startswith("__"):
            assert LEVEL[rest[0]] < LEVEL[own], f"{path_of(file)} imports {module}, which is not below it"


@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_libraries_come_in_where_they_are_needed(file):
    allowed = {"shortback", *sys.stdlib_module_names}
    for name, libraries in LIBRARIES.items():
        if LEVEL[name] <= LEVEL[entry(file)]:
            allowed |= libraries
    if path_of(file) in DRAWS:
        allowed.add("matplotlib")
    used = {module.partition(".")[0] for module in imports(file)}
    assert used <= allowed


def test_no_circle_between_files():
    """Imports within functions included: those upwards are hidden there first."""
    graph = {name: {module for module in imports(file) if module in MODULES} for name, file in MODULES.items()}
    done = set()

    def visit(name, path):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in done:
            for target in graph.get(name, ()):
                visit(target, [*path, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize("file", FILES, ids=path_of)
def test_files_are_short(file):
    assert len(file.read_text().splitlines()) <= 310


@pytest.mark.parametrize("package", [f.parent for f in FILES if f.name == "__init__.py"], ids=lambda p: p.name)
def test_no_function_shadows_its_own_module(package):
    source = (package / "__init__.py").read_text()
    bound = {
        alias.asname or alias.name
        for n in ast.walk(ast.parse(source))
        if isinstance(n, ast.ImportFrom)
        for alias in n.names
        if n.module != package.name
    }
    modules = {f.stem for f in package.glob("*.py")} | {f.parent.name for f in package.glob("*/__init__.py")}
    modules_bound = {"compiled", "reference", *("data", "health", "losses", "models", "neurons", "schedules")}
    modules_bound |= {"surrogates", "training"}  # as themselves
    assert bound & modules <= modules_bound


def test_every_module_has_a_test_where_it_is_itself():
    # Covered by the tests of what uses them: the whole of a run, or of its package.
    within = {
        *("__main__", "errors", "processes", "console"),
        *("shortcuts/network", "shortcuts/tapping", "models/layers", "models/residual", "health/measurement"),
        *("training/signals", "training/state"),
        *("training/outcome", "spiking/static_input", "spiking/spikify", "inspection/hooks"),
        *("recipes/schema", "recipes/network_settings", "recipes/data_settings", "recipes/training_settings"),
        *("recipes/schema", "recipes/network_settings", "recipes/data_settings", "recipes/training_settings"),
        *("ops/layer", "ops/layer_kernels"),  # by models/test_fused.py, which has what it joins to compare with
        *("runs/run", "runs/summary", "runs/compare", "runs/evaluate", "runs/environment", "runs/gradient_page"),
        *("export/nir_nodes", "export/executors"),  # by test_nir.py and test_writing.py
        "cli_deploy",  # by runs/test_export.py
        "initialization/rates",  # by test_scaling.py
    }
    modules = {re.sub(r"(^|/)_(?!_)", r"\1", path_of(f).removesuffix(".py")) for f in FILES if f.stem != "__init__"}
    assert within <= modules
    for module in modules - within:
        folder, _, name = module.rpartition("/")
        assert (TESTS / folder / f"test_{name}.py").is_file(), module


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

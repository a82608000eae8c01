"""What documents say is so: their Python runs, their commands and settings are there, the tree is the tree."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from shortback.cli import app
from shortback.recipes.load import load_recipe, merged, parse_recipe, read_tree
from shortback.recipes.yaml_text import read_yaml

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _title(block, number):
    """The library of a program, so that it can be chosen, or its number."""
    found = re.search(
        r"^(?:import|from) (spikingjelly|snntorch|norse|sinabs|timm|lightning)", block, flags=re.MULTILINE
    )
    return found[1] if found else number


def blocks(language):
    return [
        pytest.param(block, id=f"{document.name}-{_title(block, i)}")
        for document in DOCUMENTS
        for i, block in enumerate(re.findall(rf"```{language}\n(.*?)```", document.read_text(), flags=re.DOTALL))
    ]


@pytest.mark.parametrize("code", blocks("python"))
@pytest.mark.filterwarnings("default")  # of the libraries
def test_python_runs(code, tmp_path, monkeypatch):
    for library in re.findall(r"^import (sinabs|norse|lightning|snntorch)", code, flags=re.MULTILINE):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README", "exec"), {})


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_are_there(block):
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line.split(" > ")[0], comments=True)
        if words[:1] == ["make"]:
            assert words[1] in targets
        if "shortback" in words:
            parse(words[words.index("shortback") + 1 :])
        if "shortback" in words and "train" in words:
            arguments = words[words.index("train") + 1 :]
            settings = [arguments[i + 1] for i, word in enumerate(arguments) if word == "-s"]
            load_recipe(arguments[0], settings=settings)


def parse(arguments):
    """See that the command line takes these arguments, without doing what they say."""
    command = typer.main.get_command(app)
    while arguments and hasattr(command, "commands"):
        assert arguments[0] in command.commands, " ".join(arguments)
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if "$" not in " ".join(arguments):  # what the shell would fill in
        command.make_context("shortback", list(arguments))


@pytest.mark.parametrize("block", blocks("yaml"))
def test_parts_of_recipes_are_read(block):
    tree = read_yaml(block, name="the block")
    base = "events-quickstart" if "frames" in tree.get("data", {}) else "quickstart"
    known = read_tree(tree.pop("extend", base))
    parse_recipe(merged(known, tree), name="the block")


def test_the_tree_is_the_tree():
    (tree,) = re.findall(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    folders: list[str] = []
    for line in tree.splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        assert ROOT.joinpath(*folders).exists(), "/".join(folders)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_links_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"

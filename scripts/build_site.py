"""Hooks of mkdocs (mkdocs.yml) for what its plugins do not do: notebooks with outputs, links out of docs/, mathematics.

Notebooks in examples/notebooks are executed again only if they or src/ change; the results are in .cache/notebooks.
"""

from __future__ import annotations

import hashlib
import html
import posixpath
import re
import shutil
import tomllib
from pathlib import Path

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "examples" / "notebooks"
EXECUTED = ROOT / ".cache" / "notebooks"
PICTURES = "benchmarks/results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks as pages, and the pictures of results that pages show."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        text, pictures = as_markdown(execute(path), path.stem)
        text = f"[Open in Colab](https://colab.research.google.com/{_repository(colab=True)}/{path.name})\n\n{text}"
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=data))
    for path in sorted((ROOT / PICTURES).glob("*.png")):
        files.append(File.generated(config, f"{PICTURES}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files that are not pages to the repository."""
    address = _repository()
    here = posixpath.dirname(page.file.src_uri)

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", here, match[1]))
        if target.startswith("docs/"):
            return match[0]
        if target.startswith(PICTURES) and target.endswith(".png"):
            return f"]({posixpath.relpath(target, here or '.')})"
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{page.file.src_uri} links to {target}, which is not there")
        return f"]({address}/{'tree' if (ROOT / target).is_dir() else 'blob'}/main/{target})"

    markdown = re.sub(r"^\[examples/(\w+)\.py\]\(.*\)$", _with_program, markdown, flags=re.MULTILINE)
    return re.sub(r"\]\((\.\./[^)#\s]+)\)", led, markdown)


def _with_program(link: re.Match[str]) -> str:
    """Append the program to a link to it that stands on a line of its own."""
    return f"{link[0]}\n\n```python\n{(ROOT / 'examples' / f'{link[1]}.py').read_text()}```"


def _repository(*, colab: bool = False) -> str:
    """The address of the repository, from pyproject.toml; or the path to its notebooks, in the form Colab expects."""
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())
    address = tree["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
    name = "/".join(address.split("/")[-2:])
    return f"github/{name}/blob/main/examples/notebooks" if colab else address


def on_page_content(content: str, **_) -> str:
    """Convert mathematics to MathML, which browsers draw without a script."""

    def draw(match: re.Match[str]) -> str:
        tag, latex = match[1], html.unescape(match[2])[2:-2]  # between \( and \), or \[ and \]
        drawn = convert(latex, display="block" if tag == "div" else "inline")
        return f'<{tag} class="mathematics">{drawn}</{tag}>'

    return re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', draw, content, flags=re.DOTALL)


def execute(path: Path) -> nbformat.NotebookNode:
    """Return the notebook at `path` with its outputs; an error in a cell ends the build."""
    sources = [path, *sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "src").rglob("*.yaml"))]
    state = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:16]
    kept = EXECUTED / f"{path.stem}-{state}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    EXECUTED.mkdir(parents=True, exist_ok=True)
    work = EXECUTED / path.stem
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(work)}}).execute()
    nbformat.write(notebook, kept)
    return notebook


def as_markdown(notebook: nbformat.NotebookNode, name: str) -> tuple[str, dict[str, bytes]]:
    """Convert a notebook to a page, and return it with its pictures by file name."""
    exporter = MarkdownExporter(config=Config({"MarkdownExporter": {"preprocessors": [CoalesceStreamsPreprocessor]}}))
    resources = {"output_files_dir": name, "unique_key": "output"}
    text, resources = exporter.from_notebook_node(notebook, resources=resources)
    text = text.replace("](../../docs/", "](../").replace(".ipynb)", ".md)")
    return text, resources["outputs"]

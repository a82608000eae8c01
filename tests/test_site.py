"""The documentation as a site: it builds without a warning, and a browser finds nothing wrong with any page of it."""

import functools
import http.server
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import nbformat
import pytest

import shortback
from tests.browser import CHROMIUM

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default"), pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
PUBLIC = [
    "",
    *(
        [
            ".training",
            ".data",
            ".data.events",
            ".data.shards",
            ".export",
            ".health",
            ".inspection",
            ".models",
            ".shortcuts",
        ]
    ),
]
PUBLIC += [".schedules", ".surrogates", ".neurons", ".losses"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site; notebooks are executed where they, or the package, changed."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def served(site):
    """Its address on this machine."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    handler.log_message = lambda *arguments: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


# What one package has for another, in a module whose other names are public.
BETWEEN_PACKAGES = {
    "Expand",
    "NeuronSettings",
    "apply_loss",
    "as_schedule",
    "classes_of",
    "make_neuron",
    "mean_over_time",
}


def public_names():
    """What a user imports, and where it is defined: what public modules say that they have, or else define."""
    for module in PUBLIC:
        home = importlib.import_module(f"shortback{module}")
        said = getattr(home, "__all__", None)
        for name in said or vars(home):
            value = getattr(home, name)
            if not inspect.isclass(value) and not inspect.isfunction(value):
                continue
            if said or (value.__module__ == home.__name__ and not name.startswith("_")):
                yield name, value.__module__


def test_every_public_name_is_in_the_reference(site):
    """By the inventory that other sites link by, where a name is under one of the modules that have it."""
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    there = {line.split(" ")[0] for line in lines}
    names = set(public_names())
    assert len(names) > 90
    missing = [
        name
        for name, origin in sorted(names)
        if not there & {*(f"shortback{module}.{name}" for module in PUBLIC), f"{origin}.{name}"}
    ]
    assert set(missing) <= BETWEEN_PACKAGES


@pytest.mark.parametrize("width", [1400, 390])
def test_every_page_at_the_width_of_a_screen_and_of_a_phone(served, site, browser, width):
    """No error in the console, nothing from another host, every picture there, no sideways scrolling."""
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html") if path.name != "404.html")
    assert len(pages) > 25
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors, asked = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in pages:
        page.goto(f"{served}/{name}", wait_until="load")
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} is {wide} pixels too wide"
        missing = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        assert (name, missing, errors) == (name, [], [])
    assert {url for url in asked if not url.startswith((served, "data:", "blob:"))} == set()


def test_search_dark_and_mathematics(served, browser):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(f"{served}/method.html")
    formula = page.locator("div.mathematics math").first
    assert formula.bounding_box()["height"] > 15
    assert "\\" not in formula.evaluate("e => e.textContent")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("label[for^=__palette]:visible").first.click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.locator("input.md-search__input").click()
    page.keyboard.type("vanishing")
    page.locator(".md-search-result__item").first.wait_for(timeout=15000)
    assert "gradient" in page.locator(".md-search-result__link").first.get_attribute("href")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert "%pip install --quiet" in code[0].source
    assert set(json.loads(path.read_text())["metadata"]) == {"kernelspec", "language_info"}


def test_notebooks_show_what_they_did(site):
    steps = (site / "notebooks" / "first_steps.html").read_text()
    assert len(re.findall(r"test accuracy [\d.]+%", steps)) == 2
    assert "<progress" in steps
    assert steps.count("<img") >= 2  # the logo, and the curves
    gradients = (site / "notebooks" / "gradients.html").read_text()
    assert gradients.count("<img") >= 3
    assert "vanishing" in gradients
    chip = (site / "notebooks" / "to_a_chip.html").read_text()
    assert re.search(r"0 of \d+ spikes differ", chip)
    for text in (steps, gradients, chip):
        assert "Traceback" not in text
        assert "Open in Colab" in text


def test_programs_are_shown_where_they_are_linked(site):
    page = (site / "any-network.html").read_text()
    assert "class Net" in re.sub("<.*?>", "", page)
    assert shortback.__name__ in page

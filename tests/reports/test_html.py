import json
import re
from pathlib import Path

import pytest

import shortback as sb
from shortback.health import plots
from shortback.recipes.load import load_recipe
from shortback.reports.html import Section, Table, write_page
from shortback.runs.diagnose import Checkup
from shortback.runs.gradient_page import write_gradient_page
from tests.browser import CHROMIUM, opened
from tests.test_diagnosis import network


@pytest.fixture
def checkup(batch):
    x, y = batch
    report = sb.diagnose(sb.attach(network(threshold=3.0), at="stages", sample=x), x, y)
    return Checkup("resnet20 <before> & after", load_recipe("quickstart"), report, None)


def test_one_file_with_all_of_it(checkup, tmp_path):
    page = tmp_path / "new" / "page.html"
    write_gradient_page(page, checkup)
    text = page.read_text()
    # Addresses in it are names of XML, and links within the page.
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text)
    assert "url(http" not in text
    assert "resnet20 &lt;before&gt; &amp; after" in text
    assert text.count("<svg ") == 4
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for layer in checkup.report.layers:
        assert f"<td>{layer.relative:.2e}</td>" in text
    for suggestion in checkup.report.suggestions:
        assert suggestion.options in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, flags=re.DOTALL)[1])
    assert data == json.loads(json.dumps(checkup.report.to_dict()))


def test_data_cannot_end_its_element(tmp_path):
    write_page(tmp_path / "a.html", title="t", lead="l", sections=[], data={"x": "</script><b>"})
    assert "</script><b>" not in (tmp_path / "a.html").read_text()


def test_tables_and_text_are_escaped(tmp_path):
    section = Section("a & b", text=["<i>"], tables=[Table("c", ["<h>"], [["<r>", "<c>"]])])
    write_page(tmp_path / "a.html", title="t", lead="l", sections=[section], data={})
    text = (tmp_path / "a.html").read_text()
    for raw in ("<i>", "<h>", "<r>", "<c>"):
        assert raw not in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_it_without_an_error_and_shows_the_numbers(checkup, tmp_path):
    page = tmp_path / "page.html"
    write_gradient_page(page, checkup)
    for dark in (False, True):
        report, text = opened(page, tmp_path, dark=dark)
        assert report["svgs"] == 4
        assert report["focusable"] > 5
        for layer in checkup.report.layers:
            assert f"{layer.relative:.2e}" in text


def test_pictures_take_the_ink_of_the_page(checkup, tmp_path):
    write_gradient_page(tmp_path / "a.html", checkup)
    assert plots.INK not in Path(tmp_path / "a.html").read_text()


def test_a_page_is_whole_or_as_it_was_and_in_utf_8(tmp_path, monkeypatch):
    write_page(tmp_path / "a.html", title="Größe", lead="l", sections=[], data={})
    before = (tmp_path / "a.html").read_bytes()
    assert "Größe".encode() in before
    with pytest.raises(UnicodeEncodeError):
        write_page(tmp_path / "a.html", title="half \ud800", lead="l", sections=[], data={})
    assert (tmp_path / "a.html").read_bytes() == before

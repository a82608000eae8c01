"""The lists of settings and commands in docs/api are what the schema and the command line say."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "reference.py"
spec = importlib.util.spec_from_file_location("reference", SCRIPT)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)


@pytest.mark.parametrize("page", reference.PAGES, ids=lambda page: page.stem)
def test_the_list_is_up_to_date(page):
    """If it is not: python scripts/reference.py"""
    text = page.read_text()
    assert "\n## " in text
    assert reference.render(text) == text

"""The script that kills trainings: what it waits for is still there to be waited for."""

import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / "scripts" / "kill_and_resume.py"
spec = importlib.util.spec_from_file_location("kill_and_resume", FILE)
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)


@pytest.mark.parametrize("name", script.CALLS)
def test_every_function_at_whose_call_it_kills_is_there(name):
    owner, function, first, last = script.CALLS[name]
    assert callable(getattr(script.owner_of(owner), function))
    assert 1 <= first <= last


def test_its_recipe_is_one():
    assert script.recipe().compare is None

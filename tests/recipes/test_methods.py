"""What a method method_uses of the settings of branches."""

import pytest

from shortback.recipes.methods import COEFFICIENTS, method_uses
from shortback.recipes.training_settings import BranchesConfig


@pytest.mark.parametrize(
    ("method", "key", "expected"),
    [
        ("vanilla", "branches.at", False),
        ("vanilla", "optimizer.lr", True),
        ("shortcut", "branches.at", True),
        ("shortcut", "branches.coefficient", True),
        ("shortcut", "branches.start", False),
        ("evolutionary", "branches.coefficient", False),
        ("evolutionary", "branches.share", True),
    ],
)
def test_each_method_has_its_own(method, key, expected):
    assert method_uses(method, key) == expected


def test_the_coefficients_are_settings_that_there_are():
    others = {f"branches.{key}" for key in BranchesConfig.model_fields} - COEFFICIENTS
    assert others == {"branches.at", "branches.weights", "branches.combine", "branches.keep"}

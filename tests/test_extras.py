import pytest

from shortback.extras import need_extra


def test_what_is_missing_is_named_with_its_extra():
    need_extra("any", "torch", "json")
    with pytest.raises(ValueError, match=r"^no_such and none_either not installed: pip install 'shortback\[some\]'$"):
        need_extra("some", "torch", "no_such", "none_either")

"""Optional dependencies, by the extra that installs them."""

from __future__ import annotations

import importlib.util

from shortback.errors import UserError


def need_extra(extra: str, *packages: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        ValueError: a package is missing; the message names the extra to install.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed: pip install 'shortback[{extra}]'")

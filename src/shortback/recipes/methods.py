"""Which settings of branches a method heeds, by their keys alone; `heeded.py` looks at what else a recipe says."""

from __future__ import annotations

from shortback.choices import Method

BASELINE: Method = "vanilla"
OF_THE_FALL = {f"branches.{key}" for key in ("schedule", "start", "end", "over", "rate", "num_levels", "share")}
COEFFICIENTS = OF_THE_FALL | {"branches.coefficient"}


def heeds(method: str, key: str) -> bool:
    """Whether a setting changes what a method trains: vanilla has no branches, shortcut's coefficient does not fall."""
    if method == BASELINE:
        return key.partition(".")[0] != "branches"
    return key not in OF_THE_FALL if method == "shortcut" else key != "branches.coefficient"

"""Which settings a method uses, judged by their keys alone; `effect.py` takes the rest of the recipe into account."""

from __future__ import annotations

from shortback.choices import Method

BASELINE: Method = "vanilla"
SCHEDULE_KEYS = {f"branches.{key}" for key in ("schedule", "start", "end", "over", "rate", "num_levels", "share")}
COEFFICIENTS = SCHEDULE_KEYS | {"branches.coefficient"}


def method_uses(method: str, key: str) -> bool:
    """Whether a setting affects a method's training: vanilla has no branches, shortcut's coefficient is constant."""
    if method == BASELINE:
        return key.partition(".")[0] != "branches"
    return key not in SCHEDULE_KEYS if method == "shortcut" else key != "branches.coefficient"

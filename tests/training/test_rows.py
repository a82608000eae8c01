import json

import pytest

from shortback.errors import UserError
from shortback.training.rows import last_row, read_epochs, read_rows

ROWS = [
    {"kind": "health", "step": 1, "epoch": 1},
    {"kind": "step", "step": 2, "epoch": 1, "loss": 1.5},
    {"kind": "epoch", "step": 2, "epoch": 1, "val_accuracy": 0.5},
]


@pytest.fixture
def metrics(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_rows_come_as_they_were_written(metrics):
    assert read_rows(metrics) == ROWS
    assert read_epochs(metrics) == ROWS[2:]
    assert last_row(metrics) == ROWS[2]


@pytest.mark.parametrize("half", ['{"kind": "st', '{"kind": "epoch", "step": 4}', "{"])
def test_half_a_line_at_the_end_is_left_out(metrics, half):
    metrics.write_text(metrics.read_text() + half)
    assert read_rows(metrics) == ROWS
    assert read_epochs(metrics) == ROWS[2:]
    assert last_row(metrics) == ROWS[2]


@pytest.mark.parametrize("line", ["{]", "[1]", '{"step": 3}', ""])
def test_a_line_that_is_no_row_is_named(metrics, line):
    first, rest = metrics.read_text().split("\n", 1)
    metrics.write_text(f"{first}\n{line}\n{rest}")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: is not a row"):
        read_rows(metrics)


def test_without_a_file_there_are_no_rows(tmp_path):
    assert read_rows(tmp_path / "none") == []
    assert last_row(tmp_path / "none") is None

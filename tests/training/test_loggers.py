import io
import json
import math

import pytest
from rich.console import Console

from shortback.training import JsonLines, Terminal
from shortback.training.loggers import logging_to

STEP = {
    "kind": "step",
    "step": 2,
    "epoch": 1,
    "loss": 1.25,
    "accuracy": 0.5,
    "coefficient": 0.75,
    "images_per_second": 100.0,
}
EPOCH = {**STEP, "kind": "epoch", "step": 4, "val_accuracy": 0.625, "branch_share": 0.3}


def test_json_lines_forget_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = JsonLines(path)
    log.start(step=0, total_steps=8)
    for step in (2, 4, 6):
        log.log({**STEP, "step": step})
    with path.open("a") as file:
        file.write('{"kind": "st')  # killed in mid-line
    log.start(step=4, total_steps=8)
    log.log({**STEP, "step": 6})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [2, 4, 6]
    log.start(step=0, total_steps=8)
    assert path.read_text() == ""


def test_the_row_of_an_epoch_that_was_not_finished_is_forgotten(tmp_path):
    """Its checkpoint after the last batch has the step of the row, which comes again."""
    log = JsonLines(tmp_path / "metrics.jsonl")
    with logging_to([log], step=0, epoch_end=0, total_steps=8):
        for row in (STEP, EPOCH, {**STEP, "step": 6}, {**EPOCH, "step": 8, "epoch": 2}):
            log.log(row)
    for epoch_end, kept in ((4, [("step", 2), ("epoch", 4), ("step", 6)]), (0, [("step", 2), ("step", 6)])):
        with logging_to([log], step=8, epoch_end=epoch_end, total_steps=8):
            rows = [json.loads(line) for line in log.path.read_text().splitlines()]
        assert [(row["kind"], row["step"]) for row in rows] == kept


def test_a_number_that_is_none_is_null(tmp_path):
    log = JsonLines(tmp_path / "metrics.jsonl")
    log.log({**EPOCH, "val_loss": math.nan, "branches": {"branch_loss": {"a": math.inf}}})
    row = json.loads(log.path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (row["val_loss"], row["branches"]) == (None, {"branch_loss": {"a": None}})


def test_only_what_started_is_closed():
    class Noted:
        def __init__(self, fails=False):
            self.fails, self.calls = fails, []

        def start(self, **numbers):
            self.calls.append("start")
            if self.fails:
                raise KeyError

        def close(self):
            self.calls.append("close")

    loggers = [Noted(), Noted(fails=True), Noted()]
    with pytest.raises(KeyError), logging_to(loggers, step=0, epoch_end=0, total_steps=1):
        pass
    assert [logger.calls for logger in loggers] == [["start", "close"], ["start"], []]


def test_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    terminal = Terminal("evolutionary", console=Console(file=out, force_terminal=False, soft_wrap=True))
    terminal.start(step=0, total_steps=8)
    terminal.log(STEP)
    terminal.advance(2)
    terminal.log(EPOCH)
    terminal.close()
    first, second = out.getvalue().splitlines()
    assert first == "evolutionary  step 2  loss 1.250  accuracy 50.0%  coefficient 0.75  100 images/s"
    assert "validation 62.5%" in second
    assert "gradient 0.30" in second


def test_a_progress_bar_on_a_terminal():
    out = io.StringIO()
    terminal = Terminal("vanilla", console=Console(file=out, force_terminal=True, width=80))
    terminal.start(step=0, total_steps=8)
    terminal.log(STEP)
    terminal.advance(2)
    terminal.log({**EPOCH, "val_accuracy": None, "branch_share": None})
    terminal.close()
    assert "2/8" in out.getvalue()
    assert "loss 1.25, acc 50.0%, c 0.75, 100 img/s" in out.getvalue()


def test_a_note_comes_first(capsys):
    for note in ("on some machine", None):
        terminal = Terminal("mine", note=note)
        terminal.start(step=0, total_steps=1)
        terminal.close()
    assert capsys.readouterr().out == "mine  on some machine\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_nothing_is_said_of_branches_without_any(is_terminal):
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, soft_wrap=True, width=80)
    terminal = Terminal("vanilla", has_branches=False, console=console)
    terminal.start(step=0, total_steps=8)
    terminal.log({**STEP, "coefficient": 0.0})
    terminal.advance(2)
    terminal.log({**EPOCH, "coefficient": 0.0, "branch_share": 0.0})
    terminal.close()
    assert "100 im" in out.getvalue()
    assert not any(word in out.getvalue() for word in ("coefficient", "branch", "c 0.0"))

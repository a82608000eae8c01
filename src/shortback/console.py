"""What the command line prints, and its exit codes."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import typer
from typer.core import TyperCommand

from shortback.choices import nearest
from shortback.errors import UserError
from shortback.processes import is_first
from shortback.words import quantity

if TYPE_CHECKING:
    from shortback.runs.summary import Summary


def say(line: str) -> None:
    """Print a line, in the first of several processes only."""
    if is_first():
        print(line, flush=True)


def closing_line(summary: Summary, folder: Path) -> str:
    """The line that says how training ended."""
    equal = "are" if summary["stripped_is_bit_equal"] else "are NOT"
    return (
        f"test accuracy {summary['test_accuracy']:.2%} after {quantity(summary['epochs'], 'epoch')} and "
        f"{summary['train_seconds']:.0f} s; the network without branches is in {folder}, and its outputs {equal} "
        "bit-equal to those of training"
    )


@contextmanager
def user_errors() -> Iterator[None]:
    """Exit with 2 and a message for a mistake the user can fix, 1 for a failed training, 128 + n for signal n."""
    try:
        yield
    except BrokenPipeError as error:  # the reader of our output, such as `head`, closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(128 + signal.SIGPIPE) from error
    except KeyboardInterrupt as error:
        fail("stopped at once; what was saved before is intact", code=128 + signal.SIGINT, cause=error)
    except (UserError, OSError) as error:
        if os.environ.get("SHORTBACK_DEBUG"):
            raise
        fail(f"error: {error}", code=2, cause=error)
    except Exception as error:
        from shortback.training import Interrupted, NonFiniteError

        if isinstance(error, Interrupted):
            fail(
                f"stopped by {error}; a checkpoint is there: add --resume", code=128 + error.signal_number, cause=error
            )
        if isinstance(error, NonFiniteError) and not os.environ.get("SHORTBACK_DEBUG"):
            fail(f"training failed: {error}", code=1, cause=error)
        raise


def fail(message: str, *, code: int, cause: BaseException) -> NoReturn:
    """Print a message to stderr and end with an exit code."""
    print(_without_long_words(message), file=sys.stderr, flush=True)
    raise typer.Exit(code) from cause


def _without_long_words(message: str) -> str:
    """Cut words of 240 or more letters, such as long lists, in the middle."""
    return re.sub(r"\S{240,}", lambda word: f"{word[0][:100]}...{word[0][-40:]}", message)


class Command(TyperCommand):
    """A command that, for a setting without `-s`, says what to write."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:  # its class depends on the version of typer
            said = getattr(error, "message", "")
            settings = [word for word in words if word in said and re.match(r"[a-z_]+(\.[a-z_]+)*=", word)]
            if not said.startswith("Got unexpected extra argument") or not settings:
                raise
            write = " ".join(f"-s {setting}" for setting in settings)
            raise typer.BadParameter(f"a setting needs -s before it: write {write}", ctx=ctx) from error


def choice_option(name: str, choices: Any, text: str) -> Any:
    """An option that takes a value of a `Literal`; its error names the nearest."""
    known = get_args(choices)

    def parse(word: str) -> str:
        if word not in known:
            near = nearest(word, known, or_else="")
            instead = f"; the nearest {'is' if ',' not in near else 'are'} {near}" if near else ""
            raise typer.BadParameter(f"{word!r} is none of {', '.join(known)}{instead}")
        return word

    words = list(known)
    return typer.Option(name, parser=parse, metavar="|".join(words), help=text, autocompletion=lambda: words)


def path_option(metavar: str, text: str) -> Any:
    """An option that takes a path; an empty one, which would mean the current folder, is refused."""
    return typer.Option(parser=_path, metavar=metavar, help=text)


def _path(path: str | Path) -> Path:  # typer parses defaults too
    if not str(path).strip():
        raise typer.BadParameter("is empty; name a folder or file")
    return Path(path)

"""The outermost place of every command: where an error becomes words and an exit code.

Invariant: whatever ends a command, stderr gets one sentence without a secret, and the exit code is
1. Of what nobody foresaw the sentence names the place; its traceback, masked too, is for who asks.
"""

import contextlib
import os
import re
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import NoReturn

import click

from ..host.log_lines import json_line, writes_json
from ..vocabulary.errors import TaskiqKitError
from ..vocabulary.foreign_errors import in_one_line
from ..vocabulary.log_actions import Action
from ..vocabulary.masking import HIDDEN, masked

REFUSED_CODE = 1

#: Set to see the traceback of an error that was not foreseen.
TRACEBACK_VARIABLE = "DAGSTER_TASKIQ_TRACEBACK"

_PACKAGE = Path(__file__).parents[1]
#: A url that the shell took apart at a blank arrives as an argument of its own.
_BEFORE_AT = re.compile(r"[^\s'\"(]+(?=@)")


def tell(sentence: str, level: str = "warning", **said: str) -> None:
    """Say a sentence on stderr: as it is, or as a line of the log where that is JSON."""
    if writes_json():  # which masks it
        click.echo(json_line(time.time(), level, sentence, said), err=True)
    else:
        click.echo(masked(sentence), err=True)


@contextlib.contextmanager
def refusals() -> Generator[None, None, None]:
    """Make whatever ends a command one sentence and one exit code, also where click says it."""
    try:
        yield
    except click.UsageError as error:
        said = _BEFORE_AT.sub(HIDDEN, masked(error.format_message()))
        if writes_json():
            tell(said, "critical")
        else:
            click.UsageError(said, error.ctx).show()
        sys.exit(REFUSED_CODE)
    except TaskiqKitError as error:
        _end(str(error))
    except (click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except RecursionError as error:
        _refuse("something is nested too deep", error)
    except Exception as error:  # noqa: BLE001  (the last place that can say it in words)
        _refuse(f"{type(error).__name__}: {in_one_line(error)}", error)


def _refuse(said: str, error: Exception) -> None:
    if os.environ.get(TRACEBACK_VARIABLE):
        tell("".join(traceback.format_exception(error)), "error")
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if Path(f.filename).is_relative_to(_PACKAGE)] or list(frames)
    place = f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else "nowhere"
    _end(
        f"{said.rstrip('.')} (not foreseen, in {place}). Check what the command was given; "
        f"{TRACEBACK_VARIABLE}=1 shows the traceback."
    )


def _end(said: str) -> NoReturn:
    tell(said if writes_json() else f"Error: {said}", "critical", action=Action.CANNOT_GO_ON.value)
    sys.exit(REFUSED_CODE)

"""Types of the numbers and files that options and arguments take.

Invariant: a number that a command gets is one that can work: finite, and within what a socket, a
machine or a clock takes. No option is of a bare type.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..vocabulary.seconds import MOST_SECONDS

#: Of a TCP port; 0 stands for a free one.
PORT = click.IntRange(0, 65_535)
#: Of slots and workers: more than any machine has processes.
SLOTS = click.IntRange(0, 100_000)
AT_LEAST_ONE = click.IntRange(1, 100_000)
MEBIBYTES = click.IntRange(1, 2**40)


class Seconds(click.FloatRange):
    """A finite number of seconds, at most a year.

    Args:
        least: The smallest that makes sense.
    """

    def __init__(self, least: float) -> None:
        super().__init__(least, MOST_SECONDS)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number; nan compares with nothing, so a range alone lets it pass."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return number


class WorkspaceFile(click.ParamType[str]):
    """A workspace.yaml, whose content no error prints, and that is not read for ever."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path; one that is not there is for the command to refuse."""
        from ..config.yaml_file import loaded

        path = str(value)
        if Path(path).is_file():
            content = loaded(path)
            if not isinstance(content, Mapping) or not isinstance(content.get("load_from"), list):
                self.fail(f"{path!r} is no workspace: it has no list load_from.", param, ctx)
        return path


WORKSPACE = WorkspaceFile()


class WebUrl(click.ParamType[str]):
    """A url of a page, that a page may lead to."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the url; any other scheme would run in the reader's browser."""
        url = str(value)
        if not re.match(r"https?://[\w\[]", url):
            self.fail("It must begin with http:// or https:// and a host.", param, ctx)
        return url

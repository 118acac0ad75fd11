"""``dagster-taskiq dead-letter``: what nobody could execute, and what to do with it."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click

from ..broker import dead_letters
from ..broker.connection import SyncConnection
from ..broker.dead_letters import DeadLetter
from ..vocabulary.errors import ConfigurationError
from ..vocabulary.text_table import fields, table
from ..vocabulary.wording import counted
from .main import broker_options, connect, json_option, say

_LONGEST_REASON = 80


@click.group("dead-letter")
def dead_letter() -> None:
    """List, show, requeue and purge dead letters."""


@dead_letter.command("list")
@broker_options
@json_option
def list_letters(as_json: bool, **broker: Any) -> None:
    """List dead letters, newest first."""
    with connect(broker) as connection:
        letters = dead_letters.read_all(connection)
    rows = [
        (x.entry_id, _when(x), x.kind, x.queue, x.task_id, x.reason[:_LONGEST_REASON])
        for x in letters
    ]
    heads = ("LETTER", "DIED", "KIND", "QUEUE", "MESSAGE", "REASON")
    text = "\n".join(table(heads, rows) or ["There are no dead letters."])
    say([_as_data(letter) for letter in letters], text, as_json=as_json)


@dead_letter.command()
@broker_options
@json_option
@click.argument("letter")
def show(letter: str, as_json: bool, **broker: Any) -> None:
    """Show one dead letter with its payload."""
    with connect(broker) as connection:
        (found,) = _find(connection, [letter])
    data = {**_as_data(found), "payload": found.payload.decode(errors="replace")}
    say(data, fields(data), as_json=as_json)


@dead_letter.command()
@broker_options
@json_option
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
def requeue(letters: tuple[str, ...], every: bool, as_json: bool, **broker: Any) -> None:
    """Put dead letters back into their queues."""
    data, lines = [], []
    with connect(broker) as connection:
        chosen = _chosen(connection, letters, every=every)
        try:
            for found in chosen:
                done = connection.run(dead_letters.requeue(found.entry_id))
                said = {
                    "queued": f"{found.task_id} waits in queue {found.queue!r} again.",
                    "none": f"{found.task_id} is no dead letter any more.",
                    "alive": f"{found.task_id} was left alone: a message of that id has not ended.",
                    "unreadable": f"{found.entry_id} is no message of ours: purge it.",
                }
                lines.append(said[done])
                data.append({"letter": found.entry_id, "task_id": found.task_id, "outcome": done})
        finally:  # what was done is said, whatever ended it
            say(data, "\n".join(lines or ["Nothing was requeued."]), as_json=as_json)


@dead_letter.command()
@broker_options
@json_option
@click.argument("letters", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
def purge(letters: tuple[str, ...], every: bool, as_json: bool, **broker: Any) -> None:
    """Delete dead letters for good."""
    with connect(broker) as connection:
        chosen = _chosen(connection, letters, every=every)
        count = connection.run(dead_letters.purge([found.entry_id for found in chosen]))
    say({"deleted": count}, f"Deleted {counted(count, 'dead letter')}.", as_json=as_json)


def _chosen(
    connection: SyncConnection, letters: Sequence[str], *, every: bool
) -> Sequence[DeadLetter]:
    if every == bool(letters):
        raise ConfigurationError("Name the dead letters, or say --all; not both and not neither.")
    return dead_letters.read_all(connection) if every else _find(connection, letters)


def _find(connection: SyncConnection, letters: Sequence[str]) -> Sequence[DeadLetter]:
    known = {letter.entry_id: letter for letter in dead_letters.read_all(connection)}
    for letter in letters:
        if letter not in known:
            raise ConfigurationError(
                f"There is no dead letter {letter!r}. `dagster-taskiq dead-letter list` shows all."
            )
    return [known[letter] for letter in letters]


def _as_data(letter: DeadLetter) -> dict[str, Any]:
    data = asdict(letter)
    del data["payload"]
    return {**data, "died_at_ms": letter.died_at_ms}


def _when(letter: DeadLetter) -> str:
    died = datetime.fromtimestamp(letter.died_at_ms / 1000, tz=timezone.utc)
    return died.strftime("%Y-%m-%d %H:%M:%S")

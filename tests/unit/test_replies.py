"""Each code that a server answers with means one thing, however redis-py tells of it."""

import pytest
import redis.exceptions
from redis._parsers.base import BaseParser

from dagster_taskiq_kit.broker.replies import REFUSED, TRANSIENT, as_our_error, code_of
from dagster_taskiq_kit.vocabulary.errors import BrokerRefused, BrokerUnavailable, UnfitServer

URL = "redis://:secret@h/0"


def answered(line: str) -> Exception:
    return BaseParser.parse_error(line)


def meaning(error: Exception, **options) -> type:
    return type(as_our_error(URL, error, **options))


@pytest.mark.parametrize("code", TRANSIENT)
@pytest.mark.parametrize(
    "line", ["{} not now 127.0.0.1:1", "ERR Error running script: -{} not now"]
)
def test_what_can_pass_is_waited_for(code, line):
    if code in ("MOVED", "ASK"):
        line = "{} 3999 127.0.0.1:6381"
    error = answered(line.format(code))
    assert code_of(error) == code
    assert meaning(error) is BrokerUnavailable


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_who_was_never_let_in_is_refused_and_who_was_waits(code):
    error = answered(f"{code} invalid username-password pair or user is disabled.")
    assert meaning(error) is BrokerRefused
    assert meaning(error, let_in=True) is BrokerUnavailable
    assert "secret" not in str(as_our_error(URL, error, let_in=True))


@pytest.mark.parametrize(
    "error",
    [
        redis.exceptions.ConnectionError("Connection refused"), redis.exceptions.TimeoutError(),
        OSError("broken pipe"), answered("ERR max number of clients reached"),
    ],
)  # fmt: skip
def test_no_answer_is_waited_for(error):
    assert meaning(error) is BrokerUnavailable


def test_what_no_server_takes_back_is_unfit():
    assert meaning(answered("ERR unknown command 'XADD'")) is UnfitServer

"""What a worker does all the time is started again, whatever ends it."""

import asyncio

import pytest

from dagster_taskiq_kit.vocabulary.errors import WorkerFailed
from dagster_taskiq_kit.worker import supervision
from dagster_taskiq_kit.worker.supervision import Supervision


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(supervision, "_FIRST_PAUSE_S", 0.001)


@pytest.mark.parametrize("ends", ["raises", "returns"])
def test_what_ends_is_started_again_and_told_until_it_shall_finish(ends):
    finish, kept, begun = asyncio.Event(), Supervision(), []

    async def work() -> None:
        begun.append(kept.trouble)
        if len(begun) == 3:
            finish.set()
        if ends == "raises":
            raise KeyError("poison")

    asyncio.run(asyncio.wait_for(kept.keep("Lane steps", work, finish), 30))
    assert len(begun) == 3
    assert begun[0] == ""
    assert "Lane steps ended and is started again" in begun[1]
    assert ("poison" in begun[1]) == (ends == "raises")


def test_without_what_is_vital_the_worker_fails_with_the_cause():
    async def work() -> None:
        raise KeyError("poison")

    hopeless = iter([False, True])
    with pytest.raises(WorkerFailed, match="Its heartbeat .*poison"):
        asyncio.run(
            Supervision().keep(
                "Its heartbeat", work, asyncio.Event(), hopeless=lambda: next(hopeless)
            )
        )

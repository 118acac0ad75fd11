"""A snapshot of what is not as the kit left it: nothing there, things of others, a dead server."""

import pytest

from dagster_taskiq_kit.broker import records
from dagster_taskiq_kit.broker.connection import SyncConnection
from dagster_taskiq_kit.config.settings import TaskiqSettings
from dagster_taskiq_kit.dev.embedded_broker import free_port
from dagster_taskiq_kit.health.rules import judge
from dagster_taskiq_kit.health.snapshot import read_snapshot
from dagster_taskiq_kit.vocabulary.errors import BrokerUnavailable
from dagster_taskiq_kit.vocabulary.states import Kind


def test_an_empty_namespace_is_read_as_empty(connection):
    snapshot = read_snapshot(connection)
    assert (snapshot.queues, snapshot.workers, snapshot.counters) == ([], [], {})
    assert (snapshot.namespace_age_s, snapshot.watched_ago_s, snapshot.dead_letters) == (
        None, None, 0,
    )  # fmt: skip
    assert snapshot.server.version
    findings = judge(snapshot, connection.settings)
    assert {f.check for f in findings if not f.ok} == {"has_live_worker"}


def test_keys_of_others_on_the_same_server_change_nothing(connection, namespace):
    before = read_snapshot(connection)
    client = connection.client
    # What taskiq-redis, Celery and another namespace of the kit leave.
    client.xadd("taskiq", {"data": b"\x80\x04pickled"})
    client.lpush("celery", "{}")
    client.hset("unacked", "tag", "[]")
    client.sadd(f"{{{namespace}-other}}:queues", "theirs")
    client.set(f"{namespace}:queues", "not ours: no hash tag")
    after = read_snapshot(connection)
    assert (after.queues, after.workers, after.counters) == (before.queues, before.workers, {})
    client.delete("taskiq", "celery", "unacked")


def test_a_key_of_another_type_is_set_aside_and_kept_for_a_day(connection):
    queues = connection.keys.name("queues")
    connection.client.set(queues, "somebody wrote here")
    assert read_snapshot(connection).queues == []
    assert not connection.client.exists(queues)
    assert connection.client.get(f"{queues}:aside") == b"somebody wrote here"
    assert 0 < connection.client.ttl(f"{queues}:aside") <= 86_400


def test_a_dead_server_is_said_within_its_bound():
    settings = TaskiqSettings.resolve(
        {"url": f"redis://127.0.0.1:{free_port()}", "give_up_s": 0.5, "connect_timeout_s": 0.5}
    )
    dead = SyncConnection(settings)
    with pytest.raises(BrokerUnavailable, match="127.0.0.1"):
        read_snapshot(dead)
    dead.close()


def test_a_record_that_somebody_deleted_hides_nothing(connection):
    for task_id in ("kept", "deleted"):
        connection.run(
            records.submit(
                task_id=task_id, kind=Kind.STEP, queue="default", priority=5, run_id="r",
                payload="{}",
            )
        )  # fmt: skip
    connection.client.delete(connection.keys.name("record", "deleted"))
    found = read_snapshot(connection).queue("default")
    assert found.backlog >= 1
    assert found.oldest_waiting_s is not None

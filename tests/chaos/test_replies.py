"""A broker that says "not now" or "not you" for a while ends no worker and fails no run."""

import contextlib
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
import redis

from .conftest import Chaos
from .own_broker import OwnBroker

STATUS = dg.DagsterRunStatus


@contextlib.contextmanager
def somebodys_slow_script(client: redis.Redis):
    client.config_set("busy-reply-threshold", 100)

    def execute() -> None:
        with contextlib.suppress(redis.RedisError):  # it is killed
            client.eval("while true do end", 0)

    thread = threading.Thread(target=execute)
    thread.start()
    yield
    client.script_kill()
    thread.join()


@contextlib.contextmanager
def rotated_password(client: redis.Redis):
    client.config_set("requirepass", "rotated")
    client.client_kill_filter(_type="normal", skipme=True)
    yield
    client.config_set("requirepass", "")


@contextlib.contextmanager
def rotated_rights(client: redis.Redis):
    client.execute_command("ACL SETUSER default -@scripting -@stream")
    yield
    client.execute_command("ACL SETUSER default +@all")


@contextlib.contextmanager
def missing_replicas(client: redis.Redis):
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


TROUBLES = {
    "somebody's script keeps it busy": somebodys_slow_script,
    "which it did not before": rotated_password,
    "NOPERM|no permissions|has no permissions": rotated_rights,
    "more replicas": missing_replicas,
}


@pytest.mark.parametrize("said", TROUBLES)
def test_what_can_pass_ends_no_worker_and_fails_no_run(make_chaos, broker: OwnBroker, said):
    with make_chaos(url=broker.url) as chaos:
        worker = chaos.start_worker()
        run_id = chaos.launch("one")
        chaos.wait_for_bodies("first")
        client = broker.client
        client.ping()
        with TROUBLES[said](client):
            # Longer than a lease, and an end that cannot be told.
            chaos.fleet.wait_for(lambda: refused(chaos, said), said, chaos.explain)
            until_s = time.monotonic() + 2 * chaos.fleet.settings.lease_s
            chaos.fleet.wait_for(lambda: time.monotonic() > until_s, "two leases")
            chaos.open_gates("first")
            chaos.wait_for_bodies("first", what="end")
            assert worker.poll() is None
        assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS, chaos.explain()
        assert len(chaos.bodies("first")) == 1
        assert chaos.fleet.stop_worker(worker) == 0


def refused(chaos: Chaos, said: str) -> bool:
    return any(words in chaos.worker_said(1) for words in said.split("|"))


def test_a_worker_that_was_never_let_in_is_refused_at_once(make_chaos, broker: OwnBroker):
    with make_chaos(url=broker.url) as chaos:
        broker.client.config_set("requirepass", "other")
        client = redis.Redis.from_url(broker.url, password="other")
        worker = chaos.start_worker(wait=False)
        assert worker.wait(60) == 1
        assert "it refused us" in chaos.worker_said(1)
        assert "Traceback" not in Path(chaos.fleet.worker_log(1)).read_text()
        client.config_set("requirepass", "")

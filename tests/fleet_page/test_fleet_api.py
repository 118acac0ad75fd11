"""/api/fleet: what the fleet page shows, as data; each second what has changed, and nothing else."""

import base64
import json
import socket
import time
import urllib.request
from contextlib import ExitStack, closing
from dataclasses import replace

import psutil

from dagster_taskiq_kit.exporter.fleet.state import API_VERSION, SECTIONS
from dagster_taskiq_kit.host.process_group import wait_until
from tests.metrics.conftest import get

from .conftest import Served
from .crowd import of_200_workers


def test_the_fleet_as_data_says_what_waits_runs_and_serves(served: Served):
    crowd = served.crowd
    for number in range(3):
        crowd.submit("bulk", f"step_{number}", job="nightly")
    crowd.add_worker("w1", ["bulk"], slots=4, busy=1)
    unserved = crowd.submit("nobody", "alone")
    served.start_exporter()
    said = served.fleet()
    assert said["api"] == API_VERSION
    assert set(SECTIONS) <= set(said)
    assert (said["namespace"], said["away"]) == ("fleetpage", None)
    assert said["totals"] == {"backlog": 3, "running": 1, "workers": 1, "dead_letters": 0}
    queues = {queue["name"]: queue for queue in said["queues"]}
    assert (queues["bulk"]["backlog"], queues["bulk"]["running"], queues["bulk"]["workers"]) == (
        2, 1, 1,
    )  # fmt: skip
    assert queues["nobody"]["workers"] == 0
    (worker,) = said["workers"]
    assert (worker["name"], worker["state"], worker["succeeded"]) == ("w1", "alive", 12)
    (running,) = said["running"]
    assert (running["job"], running["worker"], running["state"]) == ("nightly", "w1", "running")
    assert running["run_id"]
    assert running["step_key"].startswith("step_")
    waiting = {each["task_id"]: each for each in said["waiting"]}
    assert len(waiting) == 3
    alone = waiting[unserved.task_id]
    assert (alone["step_key"], alone["job"], alone["queue"]) == ("alone", "nightly", "nobody")
    assert abs(alone["since_ms"] - time.time() * 1000) < 60_000
    wrong = {(each["subject"], each["check"]) for each in said["findings"]}
    assert ("queue/nobody", "has_live_worker") in wrong
    assert said["severity"] == "error"


def test_who_follows_is_told_all_and_then_what_has_changed(served: Served):
    crowd = served.crowd
    crowd.add_worker("w1", ["bulk", "other"], slots=4, busy=0)
    first = crowd.submit("bulk", "first")
    served.start_exporter()
    events = served.events()
    told = next(events)
    assert list(told["rows"]["waiting"]) == [first.task_id]
    assert told["head"]["links"] == {"ui": "http://dagster.example", "assets": "taskiq"}
    second = crowd.submit("bulk", "second")
    changed = next(each for each in events if "waiting" in each["rows"])
    assert list(changed["rows"]["waiting"]) == [second.task_id]
    assert "other" not in changed["rows"].get("queues", {})
    crowd.add_worker("w2", ["bulk"], slots=4, busy=2)
    gone = [each for each, _ in zip(events, range(3), strict=False) if "waiting" in each["gone"]]
    assert sorted(task for each in gone for task in each["gone"]["waiting"]) == sorted(
        [first.task_id, second.task_id]
    )
    events.close()


def test_without_the_broker_the_last_state_stays_and_says_how_old_it_is(served: Served):
    served.crowd.submit("bulk", "first")
    served.start_exporter()
    before = served.wait_for(lambda said: said["totals"]["backlog"] == 1, "a backlog")
    served.broker.stop()
    away = served.wait_for(lambda said: said["away"] is not None, "an outage")
    assert away["severity"] == "error"
    assert away["taken_at_ms"] >= before["taken_at_ms"]
    assert [each["step_key"] for each in away["waiting"]] == ["first"]
    served.broker.start()
    served.wait_for(lambda said: said["away"] is None, "the broker")


def test_an_exporter_that_never_saw_its_broker_says_so(served: Served):
    served.broker.stop()
    served.start_exporter()
    said = served.fleet()
    assert said["away"]
    assert (said["severity"], said["taken_at_ms"], said["queues"]) == ("error", None, [])


def test_a_password_guards_page_and_data_and_no_page_may_frame_them(served: Served, monkeypatch):
    monkeypatch.setenv("DAGSTER_TASKIQ_EXPORTER_PASSWORD", "open sesame")
    served.start_exporter("--basic-auth-user", "ali")
    for path in ("/", "/fleet.js", "/fleet.css", "/api/fleet", "/api/fleet/events", "/metrics"):
        assert get(served.url + path)[0] == 401, path
    token = base64.b64encode(b"ali:open sesame").decode()
    asked = urllib.request.Request(f"{served.url}/", headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        guards = answer.headers["Content-Security-Policy"]
        assert b"fleet.js" in answer.read()
    assert "default-src 'none'" in guards
    assert "frame-ancestors 'none'" in guards
    assert "unsafe" not in guards


def test_who_follows_does_not_hold_up_the_end_of_the_exporter(served: Served):
    served.start_exporter()
    events = served.events()
    next(events)
    served.exporter.terminate()
    assert wait_until(lambda: served.exporter.poll() is not None, 20)
    assert served.exporter.returncode == 0


def test_while_nobody_watches_the_broker_is_left_in_peace(served: Served):
    served.start_exporter()
    served.fleet()

    def scripts() -> int:
        stats = served.crowd.connection.client.info("commandstats")
        return sum(each["calls"] for name, each in stats.items() if "evalsha" in name)

    count, since_s = scripts(), time.monotonic()

    def quiet_for_3_s() -> bool:
        nonlocal count, since_s
        if (now := scripts()) != count:
            count, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 3

    assert count > 0
    assert wait_until(quiet_for_3_s, 60)


def test_the_data_is_json_that_shows_no_password(served: Served):
    served.start_exporter()
    said = json.dumps(served.fleet())
    assert "redis://" not in said


def test_who_does_not_read_is_hung_up_on_and_keeps_nobody_out(served: Served):
    of_200_workers(served.crowd)  # more than a socket holds
    served.start_exporter()
    port = int(served.url.rpartition(":")[2])
    served.fleet()
    with ExitStack() as unread:
        for _ in range(5):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", port))
            unread.enter_context(closing(client))
            client.sendall(b"GET /api/fleet/events HTTP/1.1\r\nHost: h\r\n\r\n")
        clients = lambda: sum(  # noqa: E731
            each.laddr.port == port and each.status == psutil.CONN_ESTABLISHED
            for each in psutil.Process(served.exporter.pid).net_connections("tcp")
        )
        assert wait_until(lambda: clients() == 5, 20)
        assert wait_until(lambda: clients() == 0, 90)
    assert served.fleet()["away"] is None


def test_a_reason_shows_no_password(served: Served):
    crowd = served.crowd
    crowd.add_worker("w1", ["default"], slots=1, busy=0)
    ((worker_id, card),) = crowd.cards.items()
    why = "it does not import: OperationalError: postgresql://etl:s3cret@db/x"
    crowd.cards[worker_id] = replace(card, stale={"code": why}, trouble=why, modes={"code": why})
    crowd.renew(worker_id)
    served.start_exporter()
    said = served.fleet()
    assert said["workers"][0]["older_code"] == {"code": why.replace("s3cret", "***")}
    assert "s3cret" not in json.dumps(said)

"""``dagster-taskiq doctor`` on real instances: a good one, and each thing that can be wrong."""

import contextlib
import json
import sys
import threading
from pathlib import Path

import yaml

from dagster_taskiq_kit.broker import worker_cards
from dagster_taskiq_kit.broker.worker_cards import WorkerCard
from tests import preloaded

from .conftest import CODE, Watching

ROOT = Path(__file__).parents[2]


def doctor(watching: Watching, *arguments: str) -> tuple[int, dict[str, dict]]:
    command = [sys.executable, "-m", "dagster_taskiq_kit", "doctor", "--json", *arguments]
    environment = {**watching.fleet.environment, "GATE": str(watching.gate)}
    done = preloaded.run(command, env=environment, within_s=120)
    assert done.stdout.startswith("["), done.stdout + done.stderr
    return done.returncode, {each["check"]: each for each in json.loads(done.stdout)}


def test_the_shipped_dagster_yaml_on_postgresql_is_fine(make_watching):
    shipped = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    config = {name: shipped[name] for name in ("run_monitoring", "run_retries", "concurrency")}
    del config["concurrency"]["runs"]  # the fleet has no daemon, so no queued coordinator
    with make_watching(storage="postgres", config=config) as watching:
        watching.start_worker()
        code, found = doctor(watching, "-w", str(watching.workspace_file))
        bad = {name: each for name, each in found.items() if each["severity"] != "ok"}
        assert bad == {}
        assert code == 0
        assert "may take" in found["database_connections"]["sentence"]
        assert "Every code location" in found["code_locations"]["sentence"]


def test_each_thing_that_is_wrong_is_found_with_its_fix(make_watching, tmp_path):
    config = {
        "run_coordinator": {
            "module": "dagster._core.run_coordinator.queued_run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": {"max_concurrent_runs": 1},
        },
        "run_monitoring": {
            "enabled": True, "start_timeout_seconds": 0, "max_resume_run_attempts": 0,
        },
        "run_retries": {"enabled": False},
    }  # fmt: skip
    with make_watching(config=config, launcher=None) as watching:
        watching.start_worker(run_slots=4)
        other = tmp_path / "other.yaml"
        target = {"relative_path": str(CODE), "location_name": "nobody_serves_it"}
        other.write_text(yaml.safe_dump({"load_from": [{"python_file": target}]}))
        code, found = doctor(watching, "-w", str(other))
        assert code == 2
        severities = {name: each["severity"] for name, each in found.items()}
        assert severities["instance_storage"] == "warn"
        assert severities["run_launcher"] == "warn"
        assert severities["start_timeout"] == "error"
        assert severities["run_monitoring"] == "error"
        assert severities["pool_slots"] == "warn"
        assert severities["run_retries"] == "warn"
        assert severities["run_slots"] == "warn"
        assert severities["code_locations"] == "error"
        assert severities["code_loading"] == "ok"
        assert severities["io_manager"] == "ok"  # one host
        assert all(each["remedy"] for each in found.values() if each["severity"] != "ok")


@contextlib.contextmanager
def renewing(broker, card: WorkerCard):
    """A worker of another host, as far as the broker knows: who does not renew is given up."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.5):
            broker.run(worker_cards.renew(card, broker.settings.lease_s, {}, ""))

    broker.run(worker_cards.renew(card, broker.settings.lease_s, {}, ""))
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_outputs_that_another_host_cannot_read_and_code_that_does_not_load_are_found(
    watching: Watching,
):
    watching.start_worker()
    broken = watching.fleet.home / "broken.py"
    broken.write_text("import nowhere_to_be_found\n")
    own_folder = watching.fleet.home / "own_folder.py"
    own_folder.write_text(
        "import dagster as dg\n"
        "defs = dg.Definitions(resources={'io_manager': dg.FilesystemIOManager(base_dir='/tmp')})\n"
    )
    workspace = watching.fleet.home / "two.yaml"
    files = [broken, own_folder]
    targets = [{"python_file": {"relative_path": str(f), "location_name": f.stem}} for f in files]
    workspace.write_text(yaml.safe_dump({"load_from": targets}))
    client, keys = watching.fleet.broker.client, watching.fleet.broker.keys
    (worker_id,) = client.zrange(keys.name("workers"), 0, -1)
    card = json.loads(client.hget(keys.name("worker", worker_id.decode()), "card"))
    other = {**card, "worker_id": "worker-on-another-host", "host": "another-host"}
    with renewing(watching.fleet.broker, WorkerCard(**other)):
        code, found = doctor(watching, "-w", str(workspace))
    assert code == 2
    assert found["code_loading"]["severity"] == "error"
    assert "broken: " in found["code_loading"]["sentence"]
    assert "nowhere_to_be_found" in found["code_loading"]["sentence"]
    assert found["io_manager"]["severity"] == "warn", found
    assert "own_folder (FilesystemIOManager)" in found["io_manager"]["sentence"]
    assert "bucket" in found["io_manager"]["remedy"]
    assert found["instance_storage"]["severity"] == "error"
    assert found["compute_logs"]["severity"] == "warn"

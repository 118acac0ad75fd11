"""``dagster-taskiq doctor`` on real instances: a good one, and each thing that can be wrong."""

import json
import subprocess
import sys
from pathlib import Path

import yaml

from .conftest import CODE, Watching

ROOT = Path(__file__).parents[2]


def doctor(watching: Watching, *arguments: str) -> tuple[int, dict[str, dict]]:
    command = [sys.executable, "-m", "dagster_taskiq_kit", "doctor", "--json", *arguments]
    environment = {**watching.fleet.environment, "GATE": str(watching.gate)}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout, done.stderr
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
        assert all(each["remedy"] for each in found.values() if each["severity"] != "ok")

"""Two releases in one fleet, from two wheels: nobody gets what he cannot read, nothing is lost."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import psutil
import pytest

from dagster_taskiq_kit.testing.fleet import FleetError
from dagster_taskiq_kit.version import SCHEMA_VERSION, __version__

from .conftest import Chaos
from .test_broker_faults import nothing_is_left, once

ROOT = Path(__file__).resolve().parents[2]
STATUS = dg.DagsterRunStatus
NEWER = "99.0.0"

#: What the next release changes: its number, its schema, and a field that older ones do not know.
CHANGES = {
    "version.py": [
        (f'__version__ = "{__version__}"', f'__version__ = "{NEWER}"'),
        (f"SCHEMA_VERSION = {SCHEMA_VERSION}", f"SCHEMA_VERSION = {SCHEMA_VERSION + 1}"),
    ],
    "vocabulary/messages.py": [
        ("    tell_outputs: bool = False\n", "    tell_outputs: bool = False\n    new: str = ''\n")
    ],
}


def install(source: Path, folder: Path) -> Path:
    """Build a wheel and install it; returns where, for PYTHONPATH."""
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, wheel], check=True)
    return target


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> dict[str, dict[str, str]]:
    """The environments of this release and of the next one."""
    folder = tmp_path_factory.mktemp("releases")
    source = folder / "source"
    keep = ("pyproject.toml", "README.md", "LICENSE")
    shutil.copytree(ROOT / "dagster_taskiq_kit", source / "dagster_taskiq_kit")
    for name in keep:
        shutil.copy(ROOT / name, source / name)
    (folder / "old").mkdir()
    old = install(source, folder / "old")
    for name, changes in CHANGES.items():
        file = source / "dagster_taskiq_kit" / name
        text = file.read_text()
        for before, after in changes:
            assert before in text
            text = text.replace(before, after)
        file.write_text(text)
    (folder / "new").mkdir()
    shutil.rmtree(source / "build", ignore_errors=True)
    new = install(source, folder / "new")
    return {"old": {"PYTHONPATH": str(old)}, "new": {"PYTHONPATH": str(new)}}


@pytest.fixture
def chaos(make_chaos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the repository would come before any wheel
    with make_chaos(settings={"drain_timeout_s": 60}) as made:
        yield made


def version_of(chaos: Chaos, worker) -> str:
    cards = {each.card.pid: each.card for each in chaos.fleet.snapshot().workers}
    return cards[worker.pid].version


def says(chaos: Chaos, run_id: str, words: str) -> Callable[[], bool]:
    return lambda: any(words in line for line in chaos.fleet.said(run_id))


def hand_over_to_newer(chaos: Chaos, releases) -> str:
    """Start a run on an older worker and hand it over to a newer one in its first step."""
    older = chaos.start_worker(environment=releases["old"])
    run_id = chaos.launch("chain")
    chaos.wait_for_bodies("first")
    newer = chaos.start_worker(environment=releases["new"])
    assert (version_of(chaos, older), version_of(chaos, newer)) == (__version__, NEWER)
    older.send_signal(signal.SIGTERM)
    resuming = says(chaos, run_id, "Resuming on taskiq workers")
    chaos.fleet.wait_for(resuming, "the newer worker to take over", chaos.explain)
    chaos.open_gates("first", "second")
    assert older.wait(60) == 0
    return run_id


def test_a_newer_release_writes_when_the_last_older_worker_has_ended(chaos: Chaos, releases):
    idle = chaos.start_worker(queues=["elsewhere"], environment=releases["old"])
    run_id = hand_over_to_newer(chaos, releases)
    blocked = says(chaos, run_id, "older workers cannot read it: worker-1-")
    chaos.fleet.wait_for(blocked, "the newer release to wait", chaos.explain)
    assert not chaos.bodies("second")
    assert chaos.fleet.stop_worker(idle) == 0
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    once(chaos, "first", "second")
    with pytest.raises(FleetError, match="written in schema 2 and this release knows 1. Update"):
        chaos.start_worker(environment=releases["old"])
    nothing_is_left(chaos)


def test_an_older_worker_that_was_frozen_meanwhile_claims_nothing(chaos: Chaos, releases):
    frozen = chaos.start_worker(environment=releases["old"], queues=["slow"])
    frozen.send_signal(signal.SIGSTOP)
    run_id = hand_over_to_newer(chaos, releases)
    assert chaos.fleet.wait_for_run(run_id).status is STATUS.SUCCESS
    once(chaos, "first", "second")
    frozen.send_signal(signal.SIGCONT)
    chaos.fleet.wait_for(
        lambda: any(w.card.pid == frozen.pid and w.live for w in chaos.fleet.snapshot().workers),
        "the frozen worker to be back", chaos.explain,
    )  # fmt: skip
    later = chaos.launch("on_slow_only")
    waits = says(chaos, later, "Queued step")
    chaos.fleet.wait_for(waits, "a step that only the older worker could take", chaos.explain)
    chaos.start_executing(environment=releases["new"], queues=["slow"])
    chaos.open_gates("on_slow")
    assert chaos.fleet.wait_for_run(later).status is STATUS.SUCCESS
    (body,) = chaos.bodies("on_slow")
    assert body.worker != frozen.pid
    assert psutil.pid_exists(frozen.pid)
    assert "refused" not in chaos.worker_said(1)
    nothing_is_left(chaos)

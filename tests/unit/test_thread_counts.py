"""A step gets its share of the cores, unless the user says otherwise."""

import pytest

from dagster_taskiq_kit.worker.warm import thread_counts


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(thread_counts, "usable_cores", lambda: 8)


@pytest.mark.parametrize(("slots", "share"), [(1, 8), (2, 4), (3, 2), (8, 1), (100, 1), (0, 8)])
def test_each_library_gets_cores_by_slots_and_at_least_one(slots, share):
    environment = {}
    assert thread_counts.share_cores(slots, environment) == share
    assert set(environment.values()) == {str(share)}
    assert {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"} <= environment.keys()


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"])
def test_what_the_user_has_set_stands(name):
    environment = {name: "5"}
    thread_counts.share_cores(8, environment)
    assert environment[name] == "5"
    if name == "OMP_NUM_THREADS":
        # OpenBLAS reads that, too, where it is told nothing of its own.
        assert "OPENBLAS_NUM_THREADS" not in environment


def test_a_container_has_the_cores_of_its_quota(monkeypatch, tmp_path):
    monkeypatch.undo()
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(thread_counts, "_QUOTA", quota)
    all_of_them = thread_counts.usable_cores()
    quota.write_text("max 100000\n")
    assert thread_counts.usable_cores() == all_of_them
    quota.write_text("50000 100000\n")
    assert thread_counts.usable_cores() == 1

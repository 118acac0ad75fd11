"""What a user gets: public names, the wheel, and its registration with Dagster."""

import subprocess
import sys
import zipfile
from pathlib import Path

import dagster_taskiq_kit

ROOT = Path(__file__).resolve().parents[2]


def test_the_public_names_are_these():
    assert dagster_taskiq_kit.__all__ == [
        "PriorityStreamBroker",
        "QueueObjective",
        "StuckRunPolicy",
        "TaskiqExecutor",
        "TaskiqHealthComponent",
        "TaskiqKitError",
        "TaskiqResource",
        "TaskiqRunLauncher",
        "TaskiqSettings",
        "__version__",
        "build_queue_depth_checks",
        "build_taskiq_asset_specs",
        "build_taskiq_definitions",
        "build_taskiq_health_checks",
        "build_taskiq_health_sensor",
        "build_taskiq_stuck_run_sensor",
        "taskiq_executor",
    ]
    for name in dagster_taskiq_kit.__all__:
        assert getattr(dagster_taskiq_kit, name) is not None


def test_the_wheel_holds_the_package_its_scripts_and_nothing_else(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    version = dagster_taskiq_kit.__version__
    assert tops == {"dagster_taskiq_kit", f"dagster_taskiq_kit-{version}.dist-info"}
    lua = {path.name for path in (ROOT / "dagster_taskiq_kit/broker/scripts").glob("*.lua")}
    assert {Path(name).name for name in names if name.endswith(".lua")} == lua
    assert "dagster_taskiq_kit/py.typed" in names


def test_the_kit_is_registered_with_dagster():
    from dagster_shared.libraries import DagsterLibraryRegistry

    import dagster_taskiq_kit.orchestration.executor

    assert DagsterLibraryRegistry.get()["dagster-taskiq-kit"] == dagster_taskiq_kit.__version__

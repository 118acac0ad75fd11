"""The house: imports run downward only, and what must be light is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def modules_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import dagster_taskiq_kit",
        "import dagster_taskiq_kit.broker.stream_broker",
        "import dagster_taskiq_kit.broker.bells, dagster_taskiq_kit.broker.guards",
        "import dagster_taskiq_kit.health.snapshot",
        "import dagster_taskiq_kit.cli.status",
        "import dagster_taskiq_kit.dev.embedded_broker",
        "import dagster_taskiq_kit.vocabulary.messages, dagster_taskiq_kit.config.settings, dagster_taskiq_kit.vocabulary.tags",
    ],
)
def test_importing_it_does_not_import_dagster(statement):
    heavy = {name for name in modules_after(statement) if name.split(".")[0].startswith("dagster")}
    assert {name for name in heavy if not name.startswith("dagster_taskiq_kit")} == set()


def test_help_imports_neither_dagster_nor_taskiq_nor_redis():
    statement = (
        "from click.testing import CliRunner\n"
        "from dagster_taskiq_kit.cli.main import main\n"
        "assert CliRunner().invoke(main, ['--version']).exit_code == 0"
    )
    assert not {"dagster", "taskiq", "redis"} & modules_after(statement)


def test_import_contracts_hold():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_private_dagster_is_imported_behind_the_door_alone():
    door = ROOT / "dagster_taskiq_kit" / "dagster_internals"
    guilty = [
        path.name
        for path in (ROOT / "dagster_taskiq_kit").rglob("*.py")
        if door not in path.parents
        and any(
            line.strip().startswith(("from dagster._", "import dagster._", "from dagster_shared"))
            for line in path.read_text().splitlines()
        )
    ]
    assert guilty == []


def test_no_file_of_the_package_is_longer_than_a_room_should_be():
    sizes = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines())
        for path in (ROOT / "dagster_taskiq_kit").rglob("*.py")
    }
    too_long = {name: size for name, size in sizes.items() if size > 400}
    assert too_long == {}


def test_dagster_facing_files_do_not_postpone_annotations():
    # Dagster reads annotations at run time; the import would turn them into text.
    guilty = [
        path.name
        for path in (ROOT / "dagster_taskiq_kit").rglob("*.py")
        if "from __future__ import annotations" in path.read_text()
    ]
    assert guilty == []


def test_no_body_of_a_function_is_longer_than_a_screen():
    too_long = {}
    for path in (ROOT / "dagster_taskiq_kit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                size = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                if size > 60:
                    too_long[f"{path.relative_to(ROOT)}:{node.name}"] = size
    assert too_long == {}

"""The contributor's face: workflows, forms and hooks are valid, and what they name exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import dagster_taskiq_kit

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "idea.yml")]


def checked(schema: str, *files: Path) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", schema, *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflows_follow_their_schema():
    checked("vendor.github-workflows", *WORKFLOWS)


def test_a_workflow_that_does_not_is_found(tmp_path):
    spoiled = tmp_path / "spoiled.yml"
    spoiled.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "runs-at:", 1))
    with pytest.raises(AssertionError):
        checked("vendor.github-workflows", spoiled)


def test_issue_forms_follow_their_schema():
    checked("vendor.github-issue-forms", *FORMS)


def test_no_file_of_the_repository_holds_or_asks_for_a_secret():
    for path in WORKFLOWS:
        assert "secrets." not in path.read_text(), path.name
    assert yaml.safe_load((WORKFLOWS[0]).read_text())["permissions"] == {"contents": "read"}


def test_the_matrix_tries_every_python_of_the_range():
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    tried = tests["jobs"]["python"]["strategy"]["matrix"]["python"]
    wanted = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert tried == [f"3.{minor}" for minor in range(int(wanted[1]), int(wanted[2]))]


def test_the_oldest_dagster_that_is_tried_is_the_oldest_of_the_range():
    tests = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    oldest = re.search(r'"dagster>=([\d.]+),', (ROOT / "pyproject.toml").read_text())[1]
    assert f"dagster=={oldest}.0 " in tests


@pytest.mark.parametrize(
    "file", ["CONTRIBUTING.md", ".github/workflows/test.yml", ".github/PULL_REQUEST_TEMPLATE.md"]
)
def test_every_make_target_that_is_named_exists(file):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = (ROOT / file).read_text()
    commands = re.findall(r"(?:`|^\$ |run: )make ([a-z -]+)", text, flags=re.MULTILINE)
    words = {word for each in commands for word in each.split()}
    assert words
    assert words <= targets


def test_every_file_that_contributing_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:dagster_taskiq_kit|tests|docs)/[\w/.]+)`", text)
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_hooks_run_the_programs_of_the_repository():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    programs = {hook["entry"].split()[0] for hook in local["hooks"]}
    assert programs == {".venv/bin/ruff", ".venv/bin/basedpyright", ".venv/bin/lint-imports"}


def test_the_changelog_speaks_of_the_version_that_this_is():
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == dagster_taskiq_kit.__version__

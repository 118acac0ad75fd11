"""What the documents claim, a test shows: every test they name exists."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_test_that_a_document_names_exists(document):
    named = set(re.findall(r"`(test_\w+)`", document.read_text()))
    written = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    }
    assert named - written == set()


def test_the_page_on_delivery_names_the_chaos_tests():
    page = (ROOT / "docs" / "how-delivery-works.md").read_text()
    assert len(set(re.findall(r"`(test_\w+)`", page))) > 30


def test_every_figure_of_the_shipped_dagster_yaml_has_its_reason_beside_it():
    lines = (ROOT / "dagster.yaml").read_text().splitlines()
    silent, explained_above = [], {-1: False}
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        above = lines[number - 1].lstrip().startswith("#") if number else False
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        by_its_block = any(said for depth, said in explained_above.items() if 0 <= depth < indent)
        explained_above = {d: said for d, said in explained_above.items() if d < indent}
        explained_above[indent] = above
        if not line.endswith(":") and not (above or by_its_block):
            silent.append(line.strip())
    launcher = ["module: dagster_taskiq_kit", "class: TaskiqRunLauncher", "env: DAGSTER_TASKIQ_URL"]
    assert silent == launcher


def test_the_shipped_dagster_yaml_has_the_figures_of_the_design():
    shipped = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    assert shipped["concurrency"]["runs"] == {"max_concurrent_runs": -1}
    assert shipped["run_monitoring"] == {
        "enabled": True,
        "start_timeout_seconds": 365 * 86_400,
        "max_resume_run_attempts": 3,
        "free_slots_after_run_end_seconds": 300,
        "poll_interval_seconds": 30,
    }
    assert shipped["run_retries"]["enabled"] is True


def test_the_table_of_changes_names_files_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index("## I want to change X") : page.index("## Why it is so")]
    rows = re.findall(r"^\| (.+) \| `(.+)` \| `(.+)` \|$", table, flags=re.MULTILINE)
    assert len(rows) >= 15
    for what, begin, test in rows:
        assert (ROOT / "dagster_taskiq_kit" / begin).is_file(), what
        assert (ROOT / "tests" / test).is_file(), what


def test_every_room_and_file_that_the_architecture_names_exists():
    page = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "dagster_taskiq_kit"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    pictured = set(re.findall(r'^  \w+\["(\w+) ', page, flags=re.MULTILINE))
    assert rooms <= pictured
    named = re.findall(rf"`((?:{'|'.join(rooms)})/(?!test_)[\w/]+\.(?:py|lua))`", page)
    assert len(named) > 30
    assert [name for name in named if not (package / name).is_file()] == []

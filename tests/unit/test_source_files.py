"""Which files a code location is made of, and when they say another fingerprint."""

import os
import sys

import pytest

from dagster_taskiq_kit.code_locations.code_location import CodeLocation
from dagster_taskiq_kit.code_locations.source_files import Root, SourceFiles, is_own_source
from dagster_taskiq_kit.dagster_internals import code_locations
from dagster_taskiq_kit.dagster_internals import names as internals

CODE = """
import dagster as dg

@dg.op
def answers():
    return 42

@dg.job
def asked():
    answers()

defs = dg.Definitions(jobs=[asked])
"""


@pytest.mark.parametrize("named_by", ["python_file", "module_name", "package_name"])
def test_a_location_knows_its_files_however_it_is_named(named_by, tmp_path, monkeypatch):
    name = f"code_named_by_{named_by}"
    package = named_by == "package_name"
    if package:
        (tmp_path / name).mkdir()
    file = tmp_path / name / "__init__.py" if package else tmp_path / f"{name}.py"
    file.write_text(CODE)
    target = str(file) if named_by == "python_file" else name
    monkeypatch.syspath_prepend(tmp_path)
    origin = internals.LoadableTargetOrigin(
        executable_path=sys.executable, working_directory=str(tmp_path), **{named_by: target}
    )
    location = CodeLocation(name, internals.serialize_value(origin), sys.executable)
    code = code_locations.load_code(location)
    assert list(code.source_roots()) == [Root(str(file.parent), deep=package)]
    assert len(code.pointers()) == 1


@pytest.fixture
def project(tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "__init__.py").write_text("one = 1\n")
    (tmp_path / "jobs" / "defs.yaml").write_text("type: x\n")
    (tmp_path / "jobs" / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "jobs" / "deep" / "deeper" / "more.py").write_text("two = 2\n")
    return tmp_path


def fingerprint(folder):
    return SourceFiles([Root(str(folder / "jobs"), deep=True)]).read().fingerprint


CHANGES = {
    "a module is written": ("jobs/__init__.py", "one = 3\n", True),
    "a component is written": ("jobs/defs.yaml", "type: y\n", True),
    "a module comes": ("jobs/deep/new.py", "", True),
    "a component comes in a new folder": ("jobs/new/defs.yaml", "type: y\n", True),
    "a hidden file comes": ("jobs/.swap.py", "", False),
    "data comes": ("jobs/data.parquet", "", False),
    "a compiled module comes": ("jobs/__pycache__/x.py", "", False),
    "a file beside the package comes": ("beside.py", "", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_fingerprint(project, change):
    name, content, changes = CHANGES[change]
    files = SourceFiles([Root(str(project / "jobs"), deep=True)])
    before = files.read()
    (project / name).parent.mkdir(exist_ok=True)
    (project / name).write_text(content)
    after = files.read()
    assert (after.fingerprint != before.fingerprint) == changes
    assert list(after.changed_since(before)) == ([str(project / name)] if changes else [])


def test_a_file_that_was_touched_says_the_same_and_one_that_went_does_not(project):
    files = SourceFiles([Root(str(project / "jobs"), deep=True)])
    before = files.read()
    os.utime(project / "jobs" / "__init__.py", (1, 1))
    assert files.read().fingerprint == before.fingerprint
    (project / "jobs" / "deep" / "deeper" / "more.py").unlink()
    assert files.read().fingerprint != before.fingerprint


def test_the_same_files_in_another_folder_say_the_same(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (project / "jobs").rename(elsewhere / "jobs")
    moved = fingerprint(elsewhere)
    (elsewhere / "jobs").rename(project / "jobs")
    assert fingerprint(project) == moved


def test_beside_a_script_only_its_own_folder_is_watched(project):
    (project / "script.py").write_text("")
    reading = SourceFiles([Root(str(project))]).read()
    assert list(reading.digests) == [str(project / "script.py")]


def test_nothing_that_is_installed_is_the_users_own_source():
    assert not is_own_source(pytest.__file__)
    assert not is_own_source(os.__file__)
    assert not is_own_source(internals.__file__)
    assert is_own_source(__file__)

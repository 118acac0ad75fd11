"""A location names its code the same way whether a worker has imported it or not."""

import sys

import pytest

from dagster_taskiq_kit import dagster_seam as seam

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
def test_warm_and_cold_workers_know_a_location_by_the_same_pointers(
    named_by, tmp_path, monkeypatch
):
    name = f"code_named_by_{named_by}"
    if named_by == "package_name":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(CODE)
        target = name
    else:
        (tmp_path / f"{name}.py").write_text(CODE)
        target = str(tmp_path / f"{name}.py") if named_by == "python_file" else name
    monkeypatch.syspath_prepend(tmp_path)
    origin = seam.LoadableTargetOrigin(
        executable_path=sys.executable, working_directory=str(tmp_path), **{named_by: target}
    )
    location = seam.CodeLocation(
        name=name, executable=sys.executable, origin=seam.serialize_value(origin)
    )
    assert list(seam.pointers_of(location)) == list(seam.load_code(location).pointers())
    assert len(seam.pointers_of(location)) == 1

"""A message goes to the location that it names, and by its pointer only where it names none."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from dagster_taskiq_kit.code_locations.code_matching import Served, is_served, location_for
from dagster_taskiq_kit.vocabulary.errors import AmbiguousCode, CodeNotServed
from dagster_taskiq_kit.vocabulary.messages import CodeName
from dagster_taskiq_kit.worker.warm.interpreter import environment_for, is_own

NORTH = Served("north", ["module:definitions"], ["clean", "north_only"])
SOUTH = Served("south", ["module:definitions"], ["clean"])
EAST = Served("east", ["file:/code/east.py"])


@pytest.mark.parametrize(
    ("code", "served", "found"),
    [
        (CodeName("etl", location="south", pointer="module:definitions"), [NORTH, SOUTH], SOUTH),
        (CodeName("etl", location="north", pointer="module:definitions"), [SOUTH, NORTH], NORTH),
        (CodeName("etl", location="east", pointer="module:definitions"), [NORTH, EAST], EAST),
        (CodeName("etl", location="south", pointer="module:definitions"), [NORTH], CodeNotServed),
        (CodeName("etl", location="other", pointer="file:/code/east.py"), [EAST], CodeNotServed),
        (CodeName("etl", pointer="module:definitions"), [EAST, NORTH], NORTH),
        (CodeName("etl", pointer="module:definitions"), [NORTH, SOUTH], AmbiguousCode),
        (CodeName("etl", pointer="module:elsewhere"), [NORTH, SOUTH], CodeNotServed),
        (CodeName("north_only"), [SOUTH, NORTH], NORTH),
        (CodeName("clean", location="south"), [NORTH, SOUTH], SOUTH),
        (CodeName("clean"), [NORTH, SOUTH], AmbiguousCode),
        (CodeName("nobody"), [NORTH, SOUTH], CodeNotServed),
    ],
)
def test_a_message_goes_to_its_own_location_and_to_no_other(code, served, found):
    if isinstance(found, Served):
        assert served[location_for(code, served)] is found
    else:
        with pytest.raises(found):
            location_for(code, served)


def test_what_fits_too_well_or_only_nearly_is_named():
    with pytest.raises(AmbiguousCode, match="may be of any of north, south"):
        location_for(CodeName("etl", pointer="module:definitions"), [NORTH, SOUTH])
    with pytest.raises(CodeNotServed, match="loaded as north: say --location-name"):
        location_for(CodeName("etl", "south", pointer="module:definitions"), [NORTH])


@pytest.mark.parametrize("location", ["north", "south", "nowhere"])
def test_doctor_and_delivery_agree_on_what_is_served(location):
    code = CodeName("etl", location=location, pointer="module:definitions")
    try:
        delivered = location_for(code, [NORTH, EAST]) is not None
    except CodeNotServed:
        delivered = False
    assert is_served(location, [NORTH, EAST]) == delivered


def test_another_virtual_environment_is_another_interpreter_though_it_links_to_the_same(tmp_path):
    venv.create(tmp_path / "other", with_pip=False, symlinks=True)
    other = tmp_path / "other" / "bin" / "python"
    assert not is_own(str(other))
    assert is_own(None)
    assert is_own(sys.executable)
    assert is_own(str(Path(sys.executable).with_name("python3")))
    assert environment_for(str(other))["PATH"].split(os.pathsep)[0] == str(other.parent)


#: What Dagster's releases since the oldest that we promise have added, and we use.
_LATER_MODULES = ["dagster._core.snowflake_partner"]
_IMPORT_ALL = f"""
import importlib, pkgutil, sys
import dagster._cli.api  # Dagster's own, which has it
for name in {_LATER_MODULES}:
    sys.modules[name] = None
import dagster_taskiq_kit
for module in pkgutil.walk_packages(dagster_taskiq_kit.__path__, "dagster_taskiq_kit."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("all")
"""


def test_every_module_imports_on_a_dagster_without_what_came_after_our_oldest():
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL], capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("all\n"), done.stderr

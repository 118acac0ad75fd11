"""A Dagster that has renamed what the kit leans on is refused with a sentence that names it."""

import ast
from pathlib import Path

import pytest

import dagster_taskiq_kit
from dagster_taskiq_kit.dagster_internals.leaned_on import LEANED_ON, check
from dagster_taskiq_kit.dagster_internals.postgres.leaned_on import leaned_on_of_postgres

PACKAGE = Path(dagster_taskiq_kit.__file__).parent
DOOR = PACKAGE / "dagster_internals"
EVERYTHING = [*LEANED_ON, *leaned_on_of_postgres()]


def rename(leaning, monkeypatch):
    """Take an attribute away as a release of Dagster that renames it does."""
    if hasattr(leaning.owner, "c"):
        kept = {name: each for name, each in leaning.owner.c.items() if name != leaning.name}
        monkeypatch.setattr(leaning.owner, "c", kept)
    elif leaning.of_objects:
        for each in leaning.owner.__mro__[:-1]:
            monkeypatch.setattr(each, "__init__", lambda _self: None, raising=False)
    else:
        for each in getattr(leaning.owner, "__mro__", [leaning.owner])[:-1] or [leaning.owner]:
            if leaning.name in vars(each):
                monkeypatch.delattr(each, leaning.name)


def test_this_dagster_has_all_of_it():
    check(EVERYTHING)


@pytest.mark.parametrize("leaning", EVERYTHING, ids=str)
def test_each_attribute_that_is_gone_is_named_in_one_sentence(leaning, monkeypatch):
    with monkeypatch.context() as patch:
        rename(leaning, patch)
        with pytest.raises(ImportError) as raised:
            check(EVERYTHING)
    said = str(raised.value)
    assert str(leaning) in said
    assert "does not know this Dagster (dagster 1." in said
    assert "install one of those, or a newer dagster-taskiq-kit." in said
    assert "\n" not in said


def private_attributes(path: Path) -> set[str]:
    """Private attributes that a file reads of others by ``x._name`` or by a name in quotes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and not (
            isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
        ):
            found.add(node.attr)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("getattr", "setattr", "hasattr", "delattr")
            and isinstance(node.args[1], ast.Constant)
        ):
            found.add(node.args[1].value)
    found -= {"_replace", "_asdict"}  # what every named tuple has
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_no_private_attribute_is_read_by_a_name_in_quotes():
    allowed = {DOOR, PACKAGE / "host" / "library_internals.py"}
    guilty = {
        str(path.relative_to(PACKAGE)): private
        for path in PACKAGE.rglob("*.py")
        if not allowed & {path, *path.parents} and (private := private_attributes(path))
    }
    assert guilty == {}


def test_every_private_attribute_behind_the_door_is_leaned_on():
    known = {leaning.name for leaning in EVERYTHING}
    used = set().union(*(private_attributes(path) for path in DOOR.rglob("*.py")))
    assert used <= known

"""What an import leaves behind is found, and named by the module that began it."""

import sys

import pytest

from dagster_taskiq_kit.worker.warm import warmth
from dagster_taskiq_kit.worker.warm.import_effects import Effect, Effects, ImportWatch


@pytest.fixture
def import_of(tmp_path, monkeypatch):
    """Writes modules, imports the first, and returns what that left."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def imported(**modules: str) -> Effects:
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        with ImportWatch("root") as watch:
            __import__(next(iter(modules)))
        return watch.effects()

    return imported


def test_what_is_left_is_named_by_the_innermost_module_that_began_it(import_of):
    effects = import_of(
        outer_one="import inner_one\nimport socket\npair = socket.socketpair()\n",
        inner_one="import tempfile\nfile = tempfile.TemporaryFile()\n",
    )
    found = {(each.what.partition(" /")[0], each.module) for each in effects.descriptors}
    assert found == {("a socket", "outer_one"), ("the open file", "inner_one")}
    (file,) = (each for each in effects.descriptors if each.module == "inner_one")
    assert file.packages == {"root", "outer_one", "inner_one"}


def test_what_is_closed_again_or_only_appended_to_is_nothing(import_of, tmp_path):
    effects = import_of(
        outer_two=f"open({str(tmp_path / 'x')!r}, 'w').close()\n"
        f"log = open({str(tmp_path / 'log')!r}, 'a')\nnull = open('/dev/null')\n"
    )
    assert effects == Effects()


def test_a_thread_of_pythons_is_told_from_one_of_a_library(import_of):
    effects = import_of(
        outer_three="import threading\nend = threading.Event()\n"
        "threading.Thread(target=end.wait, name='mine', daemon=True).start()\n"
    )
    sys.modules["outer_three"].end.set()
    assert [str(each) for each in effects.threads] == [
        "the thread 'mine', begun by the import of 'outer_three'"
    ]
    assert effects.native_threads == []


def test_a_module_has_its_own_loader_when_it_is_imported(import_of):
    import_of(outer_four="from importlib.util import find_spec\nassert find_spec('json').origin\n")
    module = sys.modules["outer_four"]
    assert type(module.__loader__).__module__.startswith(("importlib", "_frozen_importlib"))
    assert module.__spec__.loader is module.__loader__


def test_a_thread_of_a_library_that_is_not_known_is_told_and_never_forked():
    unknown = Effect("a thread of a library", ("root", "mystery.core"))
    verdict = warmth.judge(Effects(native_threads=[unknown]), "auto")
    assert verdict.unsafe == {"mystery"}
    assert "begun by the import of 'mystery.core', for which the kit has no trial" in verdict.why[0]
    assert warmth.judge(Effects(native_threads=[unknown]), "always").warm


def test_a_library_that_does_not_bear_a_fork_is_found_by_trying(monkeypatch):
    threads = Effects(native_threads=[Effect("a thread of a library", ("root", "json.machine"))])
    monkeypatch.setattr(warmth, "TRIALS", {"json": lambda: True})
    monkeypatch.setattr("dagster_taskiq_kit.worker.warm.trials.TRIALS", {"json": lambda: True})
    assert warmth.judge(threads, "auto").warm
    monkeypatch.setattr("dagster_taskiq_kit.worker.warm.trials.TRIALS", {"json": lambda: False})
    verdict = warmth.judge(threads, "auto")
    assert verdict.unsafe == {"json"}
    assert verdict.why == ["json: a forked child that computes with it fails"]

"""What is said to a newcomer is true: what the sources are packed of, and what docstrings import."""

import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import dagster_taskiq_kit

ROOT = Path(__file__).resolve().parents[2]
_NAMED = re.compile(
    r"``(\w+)`` from\s+``([\w.]+)``|^\s*(?:>>> )?from (dagster_taskiq_kit[\w.]*) import ([\w, ]+)$",
    re.MULTILINE,
)


def test_every_import_that_a_docstring_names_works():
    """Dagster's UI shows them: the page of a resource is its docstring."""
    found = 0
    for module in pkgutil.walk_packages(dagster_taskiq_kit.__path__, "dagster_taskiq_kit."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        of_module = [
            o for o in vars(loaded).values() if getattr(o, "__module__", "") == module.name
        ]
        for text in filter(None, [loaded.__doc__, *(inspect.getdoc(each) for each in of_module)]):
            for name, where, source, names in _NAMED.findall(text):
                for one in (name or names).split(","):
                    found += 1
                    assert hasattr(importlib.import_module(where or source), one.strip()), text
    assert found


def test_the_sources_are_packed_with_one_readme_and_nothing_of_the_tests(tmp_path):
    code = (
        "import sys, pathlib; from hatchling.build import build_sdist; "
        "print(build_sdist(sys.argv[1]))"
    )
    tools = tmp_path / "tools"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, "hatchling"],
        check=True,
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tools)},
        capture_output=True,
        text=True,
        check=True,
    )
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as packed:
        names = [name.partition("/")[2] for name in packed.getnames()]
    assert [name for name in names if name.endswith("README.md")] == ["README.md"]
    tops = {name.partition("/")[0] for name in names}
    assert tops <= {
        "dagster_taskiq_kit",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "pyproject.toml",
        "PKG-INFO",
        ".gitignore",
    }


@pytest.mark.parametrize("code", [0, 3])
def test_installing_says_what_it_is_at_and_what_went_wrong(capfd, code):
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "setup_venv.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    setup._EVERY_S = 0.0
    said = (
        "Collecting dagster (from x)\nnoise\nInstalling collected packages: dagster\nERROR: no disk"
    )
    command = [sys.executable, "-c", f"print({said!r}); raise SystemExit({code})"]
    if code:
        with pytest.raises(SystemExit) as caught:
            setup.tell(command, "Is there a network?")
        assert "ERROR: no disk" in str(caught.value)
        assert str(caught.value).endswith("Is there a network?")
    else:
        setup.tell(command, "Is there a network?")
    shown = capfd.readouterr().out
    assert re.search(r"\d s  Collecting dagster\n", shown)
    assert re.search(r"\d s  Installing collected packages", shown)
    assert "noise" not in shown

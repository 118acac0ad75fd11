"""What is said to a Dagster that the kit does not know."""

from importlib.metadata import PackageNotFoundError, version

from ..version import __version__


def unknown_dagster(what: str) -> ImportError:
    """Return the error for a Dagster that lacks something the kit needs.

    Args:
        what: What it lacks, as a sentence without its full stop.
    """
    return ImportError(
        f"dagster-taskiq-kit {__version__} does not know this Dagster ({_installed()}): {what}. It "
        "is made for dagster>=1.13,<1.14: install one of those, or a newer dagster-taskiq-kit."
    )


def _installed() -> str:
    found: list[str] = []
    for name in ("dagster", "dagster-postgres"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)

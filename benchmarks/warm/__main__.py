"""``python -m benchmarks.warm``: probes each library in a process of its own; prints a table.

A library that this environment has is taken as it is; another is installed into a folder beside it.
"""

import argparse
import sys
from pathlib import Path

from .libraries import LIBRARIES, Library
from .probed import Probed, ProbeFailed, probed

HEADS = (
    "library", "version", "import", "threads", "open", "handlers, exits, fork hooks",
    "fork after import", "fork after use", "its makers on forks", "served",
)  # fmt: skip


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm", description=__doc__)
    parser.add_argument("names", nargs="*", help="those libraries only")
    parser.add_argument("--write", type=Path, help="put the table into this page, too")
    options = parser.parse_args()
    lines = [f"| {' | '.join(HEADS)} |", f"|{'---|' * len(HEADS)}"]
    print("\n".join(lines), flush=True)
    right = []
    for library in LIBRARIES:
        if not options.names or library.name in options.names:
            cells, computes = row(library)
            right.append(computes)
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    lines += ["", f"{sum(right)} of {len(right)} are served and compute right."]
    print(lines[-1])
    if options.write is not None:
        page = options.write.read_text()
        head, _, rest = page.partition("<!-- table -->\n")
        tail = rest.partition("<!-- end -->")[2]
        options.write.write_text(
            f"{head}<!-- table -->\n" + "\n".join(lines) + f"\n<!-- end -->{tail}"
        )
    sys.exit(0 if all(right) else 1)


def row(library: Library) -> tuple[tuple[str, ...], bool]:
    """Probe one library; returns its row of the table, and whether steps compute right with it."""
    try:
        found = probed(library)
    except ProbeFailed as error:
        return (library.name, str(error), *[""] * (len(HEADS) - 2)), False
    cells = (
        library.name, found.version, f"{found.import_s:.2f} s",
        f"{found.native_threads} + {found.threads}", ", ".join(found.descriptors) or "-",
        f"{found.signal_handlers}, {found.exit_handlers}, {found.fork_hooks}",
        found.after_import, found.after_use, library.documented or "-", _served(found),
    )  # fmt: skip
    return cells, found.computes_right


def _served(found: Probed) -> str:
    return f"{found.served} ({'; '.join(found.why)})" if found.why else found.served


if __name__ == "__main__":
    main()

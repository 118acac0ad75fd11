"""Figures in a page, between marks, so that the page says what was measured and nobody copies it.

Invariant: what stands outside the marks of its own name is left as it is.
"""

import os
import platform
import time
from pathlib import Path


def write_figures(file: Path, name: str, text: str) -> None:
    """Put a report into a page in the place of the one before.

    Args:
        file: The page, which has ``<!-- NAME -->`` and ``<!-- end of NAME -->``.
        name: The name of the marks.
        text: The report.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = file.read_text().partition(begin)
    _, _, after = rest.partition(end)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
    made = f"Measured on {time.strftime('%Y-%m-%d')} ({machine})."
    file.write_text(f"{before}{begin}\n\n{made}\n\n{text.strip()}\n\n{end}{after}")

"""Data as lines of text for people; one way to print it everywhere."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return rows as aligned lines under their heads; nothing when there are no rows."""
    if not rows:
        return []
    cells = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def fields(data: Mapping[str, Any]) -> str:
    """Return what one thing says of itself, one field a line."""
    # Through JSON: it has no enumerations and no tuples.
    plain = json.loads(json.dumps(data))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=10**9).rstrip()

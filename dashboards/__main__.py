"""Write the dashboards' JSON from their code: `python -m dashboards`."""

import json
from pathlib import Path

from .overview import OVERVIEW
from .slo import SLO

GRAFANA = Path(__file__).parent / "grafana"
FILES = {"overview.json": OVERVIEW, "slo.json": SLO}


def rendered() -> dict[str, str]:
    """Return what each file must hold."""
    return {
        name: json.dumps(dashboard.as_json(), indent=2) + "\n" for name, dashboard in FILES.items()
    }


def main() -> None:
    """Write the files."""
    for name, text in rendered().items():
        (GRAFANA / name).write_text(text)


if __name__ == "__main__":
    main()

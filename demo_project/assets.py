"""The pipeline: split the year, measure each month on its own, add up, check, report.

What travels between steps is a path or a few dozen sums; rows stay in files. Every step finds its
input through its arguments alone, so it may run in any process on any worker that sees the root.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from . import delays, nyc_flights, report
from .delays import DelayGroup


class FlightData(dg.ConfigurableResource["FlightData"]):
    """Where the demo keeps its files, and which month to lose on purpose.

    Set `DEMO_DROP_MONTH` to 1..12 where the steps run and the first step leaves that month's
    flights out. That is how the tests break the input: the checks must then fail the run.

    Attributes:
        root: A folder that every worker of the run sees.
    """

    root: str

    def drop_month(self) -> int | None:
        """Return the month to leave out, as the environment of this very step names it."""
        value = os.environ.get("DEMO_DROP_MONTH")
        if not value:
            return None
        if value not in {str(month) for month in range(1, 13)}:
            raise ValueError(f"DEMO_DROP_MONTH is {value!r}: it must be a month from 1 to 12.")
        return int(value)


@dg.op(out=dg.DynamicOut(str), tags={"dagster-taskiq/priority": "8"})
def split_by_month(flight_data: FlightData) -> Iterator[dg.DynamicOutput[str]]:
    """Unpack the flights; all else waits for this, hence its priority."""
    root = Path(flight_data.root)
    for month_file in nyc_flights.split_by_month(root, flight_data.drop_month()):
        yield dg.DynamicOutput(str(month_file), mapping_key=month_file.stem)


@dg.op(tags={"dagster-taskiq/queue": "heavy"})
def measure_month(month_file: str) -> list[DelayGroup]:
    """Join one month's flights with the weather of their hour and sum up their delays."""
    return delays.measure_month(Path(month_file))


@dg.op
def add_up_year(months: list[list[DelayGroup]]) -> dg.Output[list[DelayGroup]]:
    """Add up the months."""
    year = delays.add_up(months)
    everything = delays.total(year)
    return dg.Output(
        year,
        metadata={
            "flights": everything.flights,
            "departed": everything.departed,
            "mean_delay_min": round(everything.mean_delay_min, 2),
        },
    )


@dg.graph_asset(group_name="demo", kinds={"duckdb"})
def departure_delays() -> list[DelayGroup]:
    """Departure delays out of New York by month, carrier, airport and weather."""
    return add_up_year(split_by_month().map(measure_month).collect())


@dg.asset(group_name="demo", kinds={"pandas", "matplotlib"})
def flight_delay_report(departure_delays: list[DelayGroup]) -> dg.MaterializeResult[Any]:
    """The delays as a plot and tables; published only if the checks on their totals hold."""
    plot = report.as_markdown_image(report.draw_delays(departure_delays), "Mean departure delay")
    tables = {
        f"by_{grouping}": report.as_table(departure_delays, grouping)
        for grouping in report.GROUPINGS
    }
    return dg.MaterializeResult(metadata={"plot": plot, **tables})

"""What a delay is and how delays add up.

A group carries sums, never means: the months' groups then add up to exactly what one pass over the
whole year would have found, in whatever order the months arrive.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .nyc_flights import connect, source_folder

# Joined on the hour in UTC: the local hour comes twice in the night when the clocks go back.
# One flight becomes four rows, one for each way of grouping it.
_GROUPS_OF_MONTH = """
    WITH observed AS (
        SELECT
            f.dep_delay,
            strftime(make_date(f.year, f.month, 1), '%Y-%m') AS month,
            concat_ws(' ', f.carrier, airlines.name) AS carrier,
            concat_ws(' ', f.origin, airports.name) AS airport,
            CASE
                WHEN weather.temp IS NULL THEN 'not recorded'
                WHEN weather.precip > 0 AND weather.temp <= 32 THEN 'snow or ice'
                WHEN weather.precip > 0 THEN 'rain'
                WHEN weather.visib < 3 THEN 'fog'
                WHEN weather.wind_speed >= 20 THEN 'wind'
                ELSE 'fair'
            END AS weather
        FROM read_parquet($month_file) AS f
        LEFT JOIN read_csv($source || '/weather.csv', nullstr = 'NA') AS weather
            USING (origin, time_hour)
        LEFT JOIN read_csv($source || '/airlines.csv', header = true) AS airlines
            USING (carrier)
        LEFT JOIN read_csv($source || '/airports.csv', header = true) AS airports
            ON airports.faa = f.origin
    )
    SELECT grouping, name, count(*), count(dep_delay), coalesce(sum(dep_delay), 0)::BIGINT
    FROM observed UNPIVOT (name FOR grouping IN (month, carrier, airport, weather))
    GROUP BY grouping, name
    ORDER BY grouping, name
"""


class DelayGroup(NamedTuple):
    """The flights that share one month, carrier, airport or kind of weather."""

    grouping: str
    name: str
    flights: int
    departed: int
    delay_min: int

    @property
    def mean_delay_min(self) -> float:
        """The mean departure delay of those that left; 0 if none did."""
        return self.delay_min / self.departed if self.departed else 0.0


def measure_month(month_file: Path) -> list[DelayGroup]:
    """Return the delays of one month's flights, in groups, from its Parquet file."""
    with connect() as db:
        rows = db.execute(
            _GROUPS_OF_MONTH, {"month_file": str(month_file), "source": str(source_folder())}
        ).fetchall()
    return [DelayGroup(*row) for row in rows]


def add_up(months: Iterable[Iterable[DelayGroup]]) -> list[DelayGroup]:
    """Return the groups of all months together, each once, sorted by grouping and name."""
    sums: dict[tuple[str, str], DelayGroup] = {}
    for group in (group for month in months for group in month):
        so_far = sums.get((group.grouping, group.name), DelayGroup(*group[:2], 0, 0, 0))
        sums[group.grouping, group.name] = so_far._replace(
            flights=so_far.flights + group.flights,
            departed=so_far.departed + group.departed,
            delay_min=so_far.delay_min + group.delay_min,
        )
    return sorted(sums.values())


def of_grouping(groups: Iterable[DelayGroup], grouping: str) -> list[DelayGroup]:
    """Return only the groups of one grouping; together they hold every flight once."""
    return [group for group in groups if group.grouping == grouping]


def total(groups: Iterable[DelayGroup]) -> DelayGroup:
    """Return all flights as one group."""
    months = of_grouping(groups, "month")
    return DelayGroup(
        grouping="total",
        name="all",
        flights=sum(month.flights for month in months),
        departed=sum(month.departed for month in months),
        delay_min=sum(month.delay_min for month in months),
    )

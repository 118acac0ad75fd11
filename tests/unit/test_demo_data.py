"""The demo's arithmetic, on the real flights: no Dagster process takes part."""

from pathlib import Path

import pytest

from demo_project import checks, delays, nyc_flights, report
from demo_project.delays import DelayGroup


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the year is unpacked once."""
    return tmp_path_factory.mktemp("demo_data")


@pytest.fixture(scope="module")
def year(root: Path) -> list[DelayGroup]:
    """The whole year's delays."""
    return delays.add_up(map(delays.measure_month, nyc_flights.split_by_month(root)))


def test_the_year_adds_up_to_the_published_totals(year: list[DelayGroup]) -> None:
    found = delays.total(year)
    assert found.flights == checks.FLIGHTS
    assert found.departed == checks.DEPARTED
    assert round(found.mean_delay_min, 2) == checks.MEAN_DELAY_MIN
    assert len(delays.of_grouping(year, "carrier")) == checks.CARRIERS


@pytest.mark.parametrize("grouping", report.GROUPINGS)
def test_every_grouping_holds_every_flight_once(year: list[DelayGroup], grouping: str) -> None:
    groups = delays.of_grouping(year, grouping)
    assert sum(group.flights for group in groups) == checks.FLIGHTS
    assert len({group.name for group in groups}) == len(groups)


def test_a_dropped_month_is_gone_and_leaves_the_whole_year_untouched(root: Path) -> None:
    months = nyc_flights.split_by_month(root, drop_month=3)
    assert [int(month.stem[-2:]) for month in months] == [1, 2, *range(4, 13)]
    assert len(nyc_flights.split_by_month(root)) == 12


def test_a_second_split_reuses_the_first_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first = nyc_flights.split_by_month(tmp_path)
    written_ns = [month.stat().st_mtime_ns for month in first]
    assert nyc_flights.split_by_month(tmp_path) == first
    assert [month.stat().st_mtime_ns for month in first] == written_ns
    assert [entry.name for entry in tmp_path.iterdir()] == [str(nyc_flights.YEAR)]


def test_months_add_up_in_any_order() -> None:
    january = [DelayGroup("weather", "rain", flights=2, departed=1, delay_min=30)]
    february = [
        DelayGroup("weather", "fog", flights=1, departed=0, delay_min=0),
        DelayGroup("weather", "rain", flights=3, departed=3, delay_min=-6),
    ]
    expected = [
        DelayGroup("weather", "fog", flights=1, departed=0, delay_min=0),
        DelayGroup("weather", "rain", flights=5, departed=4, delay_min=24),
    ]
    assert delays.add_up([january, february]) == delays.add_up([february, january]) == expected
    assert [group.mean_delay_min for group in expected] == [0.0, 6.0]


def test_the_plot_is_a_small_png(year: list[DelayGroup]) -> None:
    png = report.draw_delays(year)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 50_000

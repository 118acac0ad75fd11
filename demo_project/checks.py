"""The published totals of 2013, held against what the run found.

Every check blocks: a total that is off fails its step, hence the run, and the report stays
unpublished.
"""

import dagster as dg

from . import delays
from .assets import departure_delays as departure_delays_asset
from .delays import DelayGroup

FLIGHTS = 336_776
CARRIERS = 16
DEPARTED = 328_521
MEAN_DELAY_MIN = 12.64


@dg.asset_check(asset=departure_delays_asset, blocking=True)
def every_flight_counted(departure_delays: list[DelayGroup]) -> dg.AssetCheckResult:
    """Every flight of the year is in the totals."""
    found = delays.total(departure_delays).flights
    return dg.AssetCheckResult(
        passed=found == FLIGHTS, metadata={"flights": found, "published": FLIGHTS}
    )


@dg.asset_check(asset=departure_delays_asset, blocking=True)
def every_carrier_present(departure_delays: list[DelayGroup]) -> dg.AssetCheckResult:
    """No carrier is missing or split in two."""
    found = len(delays.of_grouping(departure_delays, "carrier"))
    return dg.AssetCheckResult(
        passed=found == CARRIERS, metadata={"carriers": found, "published": CARRIERS}
    )


@dg.asset_check(asset=departure_delays_asset, blocking=True)
def mean_delay_as_published(departure_delays: list[DelayGroup]) -> dg.AssetCheckResult:
    """The mean departure delay, over exactly the flights that left, is the published one."""
    found = delays.total(departure_delays)
    mean_delay_min = round(found.mean_delay_min, 2)
    return dg.AssetCheckResult(
        passed=(found.departed, mean_delay_min) == (DEPARTED, MEAN_DELAY_MIN),
        metadata={
            "departed": found.departed,
            "published_departed": DEPARTED,
            "mean_delay_min": mean_delay_min,
            "published_mean_delay_min": MEAN_DELAY_MIN,
        },
    )

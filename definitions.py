"""The demo project as a code location: what a user of the kit writes, and nothing more.

Importing this file leaves no thread running, so a worker may fork its steps from a process that
has imported it.
"""

import os
from pathlib import Path

import dagster as dg

from dagster_taskiq_kit import build_taskiq_definitions, taskiq_executor
from demo_project.assets import FlightData, departure_delays, flight_delay_report
from demo_project.checks import (
    every_carrier_present,
    every_flight_counted,
    mean_delay_as_published,
)

HOME = Path(os.environ.get("DAGSTER_HOME") or Path(__file__).parent)

flight_delays = dg.define_asset_job(
    "flight_delays", selection=dg.AssetSelection.assets(departure_delays, flight_delay_report)
)

defs = dg.Definitions.merge(
    dg.Definitions(
        assets=[departure_delays, flight_delay_report],
        asset_checks=[every_flight_counted, every_carrier_present, mean_delay_as_published],
        jobs=[flight_delays],
        resources={"flight_data": FlightData(root=str(HOME / "demo_data"))},
        executor=taskiq_executor,
    ),
    # The health of the workers that execute it.
    build_taskiq_definitions(),
)

"""Health as Dagster and an operator see it: assets, checks, sensors, stuck runs, doctor."""

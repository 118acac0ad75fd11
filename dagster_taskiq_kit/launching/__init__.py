"""From a run that Dagster launches to a message on a queue."""

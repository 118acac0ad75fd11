"""The stack of ``dagster-taskiq dev``: an embedded broker, workers, and Dagster's UI."""

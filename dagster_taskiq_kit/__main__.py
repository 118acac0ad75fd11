"""``python -m dagster_taskiq_kit`` is ``dagster-taskiq``."""

from .cli.main import main

if __name__ == "__main__":
    main(prog_name="dagster-taskiq")

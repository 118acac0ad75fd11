# Two commands do everything from a fresh clone: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo dev test test-fast test-libraries check bench bench-scale bench-cli bench-metrics soak clean

demo: ## the demo job, executed on real input by real workers
	@$(PYTHON) tools/setup_venv.py $(VENV) demo
	@$(BIN)/dagster-taskiq dev --run flight_delays -q default -q heavy

dev: ## the same stack with Dagster's UI, until Ctrl-C
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/dagster-taskiq dev -q default -q heavy

test-fast: ## what needs no server: unit tests and the contracts of the house
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/python -m pytest -n 2 -q tests/unit tests/arch $(PYTEST_ARGS)

test: check ## everything that CI runs
	@$(PYTHON) tools/setup_programs.py
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: ## format, lint, types
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

test-libraries: ## what steps do after the import of each library of the table, each installed
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@ALL_LIBRARIES=1 $(BIN)/python -m pytest tests/libraries

bench: ## the comparison with Dagster's executors and dagster-celery, into benchmarks/README.md
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/python -m benchmarks --json benchmarks/latest.json --plot benchmarks/latest.png --write benchmarks/README.md
	@$(BIN)/python -m benchmarks.latencies --write benchmarks/README.md
	@$(BIN)/python -m benchmarks --job chain --imports pandas --peers

bench-scale: ## thousands of steps and fifty runs at once, into benchmarks/README.md: half an hour
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/python -m benchmarks --job fan --job wide --job widest --job dynamic -n 1 --write benchmarks/README.md --marks scale
	@$(BIN)/python -m benchmarks.at_once --write benchmarks/README.md

bench-cli: ## how long --help takes, beside dagster-celery's
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/python -m benchmarks.cli

bench-metrics: ## what a scrape and the counters cost
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@$(BIN)/python -m benchmarks.scrape

soak: ## random faults for SOAK_MINUTES (default 10); the seed is printed
	@$(PYTHON) tools/setup_venv.py $(VENV) test
	@SOAK_S=$$(( $${SOAK_MINUTES:-10} * 60 )) $(BIN)/python -m pytest -s --timeout 0 tests/chaos/test_soak.py

clean:
	rm -rf $(VENV) .dagster_home

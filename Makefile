# `make repro` runs the pipeline, `make test` the tests, `make ui` shows the runs. CI runs exactly these.

PYTHON ?= python3
EXTRAS ?= dev
WORKERS ?= 3
VENV := .venv
# Another choice of extras is another installation.
comma := ,
INSTALLED := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
BIN := $(abspath $(VENV))/bin
export PATH := $(BIN):$(PATH)

.PHONY: help install repro test test-fast test-cluster check format ui stages lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/'

install: $(INSTALLED)  ## make .venv with the versions of requirements.lock; EXTRAS=dev,cuda on a GPU node

$(INSTALLED): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f"error: Python must be 3.11, 3.12 or 3.13, got {v[0]}.{v[1]}; name another with make PYTHON=python3.12")'
	@echo "Installing into $(VENV): some minutes, about 4 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[$(EXTRAS)]'
	@touch $@

repro: install  ## run what has to run of the pipeline
	dvc repro
	@echo
	@echo "The report:   results/report/report.html"
	@echo "All the runs: make ui"

test: install  ## run the tests, three at a time: most wait for processes
	python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore=tests/cluster

test-cluster: install  ## run the tests on a cluster of this machine: SLURM, nodes with addresses of their own; as root
	python -m pytest -n $(WORKERS) --dist load --durations=15 tests/cluster

test-fast: install  ## run the tests that need no cluster, no browser, no pipeline and no process of their own
	python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

check: install  ## formatting, lint, types
	ruff format --check .
	ruff check .
	mypy

format: install  ## format the code and mend what can be mended
	ruff format .
	ruff check --fix .

ui: install  ## show the runs in the MLflow UI and print links to the comparison
	python -m mis.track

stages: install  ## write the dependencies of the stages on code into dvc.yaml
	python tools/stages.py

lock: install  ## choose the newest versions that fit pyproject.toml anew
	python -m pip install --quiet uv
	uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --upgrade --quiet \
		--no-header --no-emit-index-url --no-emit-find-links --no-annotate --output-file requirements.lock

clean:  ## remove what the pipeline and the tools made; .venv, mlruns and data that you linked or imported stay
	rm -rf data/records* data/.records* data/raw/phantom models results checkpoints .mypy_cache .ruff_cache .pytest_cache

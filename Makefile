# `make solve` and `make test` each do all of their own set-up: a virtual environment with pinned
# dependencies in .venv, and the model in the cache (~/.cache/mathlete, or $MATHLETE_CACHE).

#
#   PYTHON   the interpreter to build .venv from
#   TRACES   files of recorded attempts for the large table of docs/selection.md (see docs/make_selection_table.py)
#   TORCH    arguments of the `pip install` that fetches torch, to choose another build (see the README)

PYTHON ?= python3
TORCH ?=
TRACES ?=
BUDGET ?= 8m
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: solve test test-vllm lint format docs lock clean help

help:
	@echo "make solve    solve the twelve example problems within $(BUDGET) (BUDGET=...), report included"
	@echo "make test     all tests, one real end-to-end solve with the 0.5B model among them"
	@echo "make test-vllm  the tests that need vLLM, in an environment of their own with its CPU build (4 GB);"
	@echo "              TORCH='torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu' where torch is not for CPUs"
	@echo "make lint     ruff and mypy"
	@echo "make format   format and fix what ruff can fix"
	@echo "make docs     write docs/cli.md from the program's own help, the pictures and the tables of docs/"
	@echo "              (TRACES='FILE...': recorded attempts, for the table that takes minutes)"
	@echo "make lock     pin what is installed into requirements.lock"

solve: $(VENV)/ready
	$(BIN)/mathlete solve examples/problems.csv --budget $(BUDGET)

test: $(VENV)/ready-dev
	$(BIN)/mathlete models pull 0.5b
	$(BIN)/python -m pytest

# vLLM wants a torch of its own. Some tests run a model of 0.5B parameters, if it has been pulled.
test-vllm: $(VLLM)/ready
	MATHLETE_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(VLLM)/bin/python -m pytest -m vllm tests/generators

lint: $(VENV)/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/ready-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/ready-dev
	env -i $(BIN)/python -X utf8 docs/make_cli.py > docs/cli.md.new
	mv docs/cli.md.new docs/cli.md
	$(BIN)/python docs/make_engine_picture.py > docs/engine-step.svg.new
	mv docs/engine-step.svg.new docs/engine-step.svg
	$(BIN)/python docs/make_selection_picture.py > docs/selection-calibration.svg.new
	mv docs/selection-calibration.svg.new docs/selection-calibration.svg
	$(BIN)/python docs/make_recipe_tables.py
	$(BIN)/python docs/make_selection_table.py $(TRACES)

# A stamp, since a creation that fails half-way leaves a python behind.
$(VENV)/created:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Mathlete needs Python 3.11 or newer; say which one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(if $(TORCH),$(PIP) install $(TORCH))
	touch $@

$(VENV)/ready: pyproject.toml requirements.lock | $(VENV)/created
	$(PIP) install -c requirements.lock -e '.[engine,tools,view]'
	touch $@

$(VENV)/ready-dev: pyproject.toml requirements.lock | $(VENV)/created
	$(PIP) install -c requirements.lock -e '.[engine,tools,dev]'
	touch $@ $(VENV)/ready

$(VLLM)/ready: requirements-vllm.lock
	$(PYTHON) -m venv --clear $(VLLM)
	$(if $(TORCH),$(VLLM)/bin/python -m pip --disable-pip-version-check install --no-deps $(TORCH))
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --no-deps -r requirements-vllm.lock
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --no-deps -e .
	$(VLLM)/bin/python -c 'import torch' || { echo "this torch is not for CPUs alone: give TORCH, see make help"; exit 1; }
	touch $@

lock: $(VENV)/ready-dev
	{ echo "# Exact versions, used as constraints by the Makefile. Made by \`make lock\`."; \
	  $(PIP) freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock

clean:
	rm -rf $(VENV) $(VLLM) .mypy_cache .pytest_cache .ruff_cache

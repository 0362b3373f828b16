# Two commands on a fresh machine: `make demo` and `make test`. Both create .venv themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test wheel-test faults slow lint format docs clean

help:
	@echo "make demo   train, compare and explain three small models on procedural rooms (report in demo/)"
	@echo "make test   run the tests          make lint   ruff and mypy"
	@echo "make slow   the slow tests too     make docs   build the documentation into site/"
	@echo "make wheel-test   the package as people install it, in a fresh environment"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

install: $(STAMP)

demo: install
	$(BIN)/stereopsis demo --output demo

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

wheel-test: install
	$(BIN)/python scripts/check_wheel.py

faults: install
	OMP_NUM_THREADS=1 $(BIN)/python perf/faults.py

slow: install
	$(BIN)/python -m pytest -m "slow and not gpu"

lint: install
	$(BIN)/ruff check src tests scripts examples perf
	$(BIN)/ruff format --check src tests scripts examples perf
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix src tests scripts examples perf
	$(BIN)/ruff format src tests scripts examples perf

docs: install
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache

# Two commands matter: `make quickstart` and `make test`. Both start from nothing but Python 3.11+ and pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_NUM_THREADS := 1

.PHONY: quickstart test test-slow lint bench bench-gpu calibration clean browser

quickstart: $(VENV)/all.installed  ## train a paired sweep on real text and print its verdicts
	$(BIN)/workbench run quickstart
	@echo; echo "To type these commands as they stand: source $(BIN)/activate"

test: $(VENV)/dev.installed browser lint  ## everything CI checks, slow tests excepted
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/dev.installed browser  ## fault injection and long property tests
	$(BIN)/python -m pytest -n 2 -m slow

lint: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/dev.installed  ## ratios against other implementations, measured in one run
	$(BIN)/python -m tests.benchmarks

bench-gpu: $(VENV)/dev.installed  ## tokens per second, MFU and peak memory on a CUDA device, where there is one
	$(BIN)/python -m tests.benchmarks.gpu

calibration: $(VENV)/dev.installed  ## error rates and power of every method, into results/calibration: about an hour
	$(BIN)/python -m tests.benchmarks.calibration
	$(BIN)/python -m tests.benchmarks.sequential > results/calibration/sequential.md

browser:  # the dashboard's tests want a Chromium; without one they are skipped, with a reason
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
	    { apt-get install -y -qq chromium >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq chromium >/dev/null; }; } } || \
	  echo "no Chromium found and none could be installed: browser tests will be skipped"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/all.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing torch, MLflow, Optuna, Streamlit and friends: a minute or two, once"
	$(INSTALL) --editable '.[all]'
	@touch $@

$(VENV)/dev.installed: $(VENV)/all.installed
	$(INSTALL) --editable '.[all,dev]'
	@touch $@

clean:  ## remove the environment and every result of this checkout
	rm -rf $(VENV) .workbench

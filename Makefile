# One front door. `make` lists what it can do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# uv reads none of pip's settings, so the index that this machine's pip uses is handed on to it.
$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "installing python3-venv"; apt-get update -qq && apt-get install -yqq --no-install-recommends python3-venv >/dev/null; }
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"; }
	@index="$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)"; \
	 UV_PYTHON_DOWNLOADS=never $(BIN)/uv pip sync --quiet --require-hashes --python $(BIN)/python $${index:+--default-index "$$index"} requirements.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.ready ## the tools, pinned, in .venv/

.PHONY: pins
pins: $(VENV)/.ready ## renew requirements.txt from pyproject.toml
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --group dev pyproject.toml --upgrade --output-file requirements.txt

.PHONY: check
check: $(VENV)/.ready ## ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

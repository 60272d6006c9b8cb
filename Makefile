# One front door. `make` lists what it can do.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LAB    := $(BIN)/python -m tests.lab

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

# uv reads none of pip's settings, so the index that this machine's pip uses is handed on to it.
$(VENV)/.ready: requirements.txt
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "installing python3-venv"; apt-get update -qq && apt-get install -yqq --no-install-recommends python3-venv >/dev/null; }
	@test -x $(BIN)/uv || { echo "making $(VENV)"; $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)"; }
	@index="$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)"; \
	 UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=1 $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python $${index:+--default-index "$$index"} requirements.txt
	@touch $@

.PHONY: venv
venv: $(VENV)/.ready ## the tools, pinned, in .venv/

.PHONY: demo
demo: lab-up ## two bare lab hosts, one deploy, a chat answer from each
	$(BIN)/pyinfra -y inventories/lab.py deploy.py
	@$(BIN)/python -m tests.lab.demo

# What the lab needs of this machine.
LAB_PACKAGES := systemd-container mmdebstrap nftables iproute2 openssh-client aria2

.PHONY: lab-packages
lab-packages:
	@missing="$$(for package in $(LAB_PACKAGES); do dpkg-query -W -f '$${db:Status-Abbrev}' $$package 2>/dev/null | grep -q ^ii || echo $$package; done)"; \
	 if [ -n "$$missing" ]; then echo "installing" $$missing; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends $$missing >/dev/null; fi

.PHONY: lab-up
lab-up: $(VENV)/.ready lab-packages ## two throw-away hosts on this computer (needs root)
	@$(LAB) up 2

.PHONY: lab-ssh
lab-ssh: $(VENV)/.ready ## a shell on a lab host: make lab-ssh HOST=lab-2
	@$(LAB) ssh $(or $(HOST),lab-1)

.PHONY: lab-down
lab-down: $(VENV)/.ready ## take the lab away; what it built is kept for next time
	@$(LAB) down

.PHONY: verify
verify: $(VENV)/.ready ## prove the lab's hosts
	$(BIN)/pytest tests/verify --inventory inventories/lab.py

.PHONY: check
check: $(VENV)/.ready ## ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

TESTS  := tests/plan tests/roles tests/e2e tests/test_architecture.py
PYTEST := $(BIN)/pytest -n 2 --dist loadfile

.PHONY: test-unit
test-unit: $(VENV)/.ready ## everything that needs no lab
	$(PYTEST) -q -m "not lab and not online" $(TESTS)

.PHONY: test-lab
test-lab: $(VENV)/.ready lab-packages ## the lab, end to end (needs root)
	$(PYTEST) -v --no-loadscope-reorder --durations=25 -m lab $(TESTS)

.PHONY: test-online
test-online: $(VENV)/.ready ## decisions resolved against the package index; slow, not part of make test
	$(BIN)/pytest -v -m online $(TESTS)

.PHONY: bench
bench: lab-up ## what a round trip costs, and a plan
	$(BIN)/python -m tests.bench.ssh_bench
	$(BIN)/python -m tests.bench.plan_bench

.PHONY: bench-models
bench-models: $(VENV)/.ready lab-packages ## one, four, eight hosts get a model: exchange, each for itself, rsync (needs root)
	@for program in aria2c rsync; do command -v $$program >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -yqq --no-install-recommends aria2 rsync >/dev/null; }; done
	$(BIN)/python -m tests.bench.models_bench

# The tests without hosts run in what those with hosts leave of the processor, and are shown after them.
.PHONY: test
test: check lab-packages ## everything that passes without a GPU, the lab included
	@said="$$(mktemp)"; \
	 $(PYTEST) -q -m "not online" $(filter-out tests/e2e,$(TESTS)) >"$$said" 2>&1 & beside=$$!; \
	 trap 'kill $$beside 2>/dev/null; rm -f "$$said"' EXIT; \
	 $(PYTEST) -v --no-loadscope-reorder --durations=25 -m "not online" tests/e2e; hosts=$$?; \
	 wait $$beside; others=$$?; cat "$$said"; \
	 [ $$hosts = 0 ] || echo "tests with hosts failed: see above those without"; \
	 exit $$((hosts | others))

.PHONY: docs
docs: $(VENV)/.ready ## renew docs/settings.md
	$(BIN)/python -m plan.settings_docs >docs/settings.md

.PHONY: pins
pins: $(VENV)/.ready ## renew requirements.txt from pyproject.toml
	$(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 --no-header --group dev pyproject.toml --upgrade --output-file requirements.txt

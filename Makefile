# The one front of this tree. `make help` explains every target; a line `name: ... ## text` is its help.
# Nothing here needs root but `deps`. Everything is installed into .venv from files that carry hashes.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
FUZZ_VENV := .venv-fuzz
FUZZ_STAMP := $(FUZZ_VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --use-pep517

# make demo DIR=... keeps everything it made in DIR; make test ARGS="-k acl" passes on to pytest
DIR ?=
ARGS ?=
FOR ?= 60
# files of tests that run at the same time; 0: all in this process
JOBS ?= $(shell nproc)

.PHONY: help venv run-venv demo test check lint imports fmt types house bench fuzz deps gpu-deps wheel-smoke hooks lock clean

help: ## explain every target (this text)
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# -- environments ------------------------------------------------------------------------------------------------

venv: $(DEV_STAMP) ## the whole environment in .venv, developers' tools included; nothing else (quick the second time)
	@echo ".venv is ready"

run-venv: $(RUN_STAMP) ## only what the daemons need, in .venv
	@echo ".venv is ready"

$(BIN)/python:
	@found=; for python in $${PYTHON:-} python3.11 python3.12 python3.13 python3; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo 'error: no Python 3.11 or later found: install `python3` (or: make venv PYTHON=/path/to/python3.11)' >&2; exit 1; fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
	  echo "error: \`$$found\` cannot make virtual environments: as root, apt-get install python3-venv (or: make deps)" >&2; exit 1; fi; \
	echo "creating $(VENV) with $$("$$found" --version)"; "$$found" -m venv $(VENV)

# Two of the libraries come as source only; what builds them is locked in build.txt and goes in first.
$(RUN_STAMP): requirements/build.txt requirements/run.txt pyproject.toml | $(BIN)/python
	@echo "installing what the daemons need (hashes checked)"
	@$(PIP_INSTALL) --require-hashes -r requirements/build.txt
	@$(PIP_INSTALL) --require-hashes -r requirements/run.txt
	@$(PIP_INSTALL) --no-deps -e .
	@touch $@

$(DEV_STAMP): requirements/dev.txt $(RUN_STAMP)
	@echo "installing the developers' tools (hashes checked)"
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

$(FUZZ_STAMP): requirements/fuzz.txt | $(BIN)/python
	@echo "installing the fuzzer into $(FUZZ_VENV) (hashes checked)"
	@$(BIN)/python -m venv $(FUZZ_VENV)
	@$(FUZZ_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	@touch $@

# -- look at it --------------------------------------------------------------------------------------------------

demo: $(RUN_STAMP) ## the whole path once, on this machine: PKI, controller, broker, real data through a kernel [DIR=where to keep it]
	@$(BIN)/stockade demo $(if $(DIR),--dir "$(DIR)")

bench: $(DEV_STAMP) ## measure this machine and commit; mosquitto and nats-server in the same run when they are installed
	@$(BIN)/python -P benchmarks/run.py $(ARGS)

# -- prove it ----------------------------------------------------------------------------------------------------

test: $(DEV_STAMP) ## every test: house, unit, property, component, e2e [ARGS="-k acl" JOBS=files at once]
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

fuzz: $(FUZZ_STAMP) ## look for bytes that break the MQTT reader, forms and exchange [FOR=seconds for each of the three, 60]
	@for target in read convert exchange; do \
	  echo "fuzzing $$target for $(FOR) s"; $(FUZZ_VENV)/bin/python tests/fuzz/fuzz_mqtt.py $$target $(FOR); done

house: $(DEV_STAMP) ## the house rules only
	@$(BIN)/python -m pytest -q tests/house

lint: $(DEV_STAMP) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

imports: $(DEV_STAMP) ## import-linter: floors and doors
	@$(BIN)/lint-imports

types: $(DEV_STAMP) ## mypy strict, then pyright strict
	@$(BIN)/mypy
	@$(BIN)/pyright

fmt: $(DEV_STAMP) ## let ruff mend what it can, and format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

check: lint types imports house ## all of it: lint, types, imports, house rules, then every test with branch coverage
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

wheel-smoke: $(DEV_STAMP) ## build the wheel, install it in a fresh environment elsewhere, import every room, run `stockade version`
	@deploy/wheel-smoke.sh $(BIN)/python

# -- the machine and the tree ------------------------------------------------------------------------------------

deps: ## (root) the Debian packages that some tests and the yardstick of `make bench` need
	@deploy/deps.sh

gpu-deps: $(DEV_STAMP) ## build the real PyCUDA without a CUDA toolkit into .venv; keeps the wheel in .gpu-wheels
	@deploy/gpu-deps.sh $(VENV)

hooks: ## let git run .githooks before each commit (ruff and the house rules)
	@git config core.hooksPath .githooks && echo "git runs .githooks from now on"

# uv is asked for once, by whoever changes a dependency; nobody else needs it: pip reads the files as they are.
LOCK := --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate --quiet
lock: ## write requirements/*.txt anew from pyproject.toml (needs `uv` on the PATH; keeps versions unless ARGS=--upgrade)
	@uv pip compile requirements/build.in $(LOCK) $(ARGS) -o requirements/build.txt
	@uv pip compile pyproject.toml $(LOCK) $(ARGS) -c requirements/build.txt -o requirements/run.txt
	@uv pip compile requirements/fuzz.in $(LOCK) $(ARGS) -c requirements/run.txt -o requirements/fuzz.txt
	@uv pip compile pyproject.toml --group dev $(LOCK) $(ARGS) -c requirements/build.txt -c requirements/run.txt -o requirements/dev.txt

clean: ## remove caches and build results; .venv and .gpu-wheels stay
	@rm -rf build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .demo
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# Everything that this project can do, from a fresh clone. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_BIN := tools/node_modules/.bin
RUNTIME := $(VENV)/.runtime.stamp
DEV := $(VENV)/.dev.stamp
NODE := tools/node_modules/.stamp
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

##@ Setting up

.PHONY: setup
setup: $(DEV) $(NODE) ## make .venv with everything for developing, and install the checkers from npm

.PHONY: setup-runtime
setup-runtime: $(RUNTIME) ## make .venv with only what the program needs to run

$(BIN)/python:
	@PYTHON=$(PYTHON) tools/system-packages.sh $(PYTHON)=python3 venv=python3-venv openssl
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "jobworker needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The sources are compiled even where PYTHONDONTWRITEBYTECODE is set: every start of the program would else compile them.
$(RUNTIME): requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q src
	@touch $@

$(DEV): requirements/dev.txt $(RUNTIME)
	$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# No script of a package is run: both tools bring what they need as packages.
$(NODE): tools/package.json tools/package-lock.json
	@tools/system-packages.sh node=nodejs npm
	cd tools && npm ci --ignore-scripts --silent
	@touch $@

##@ Generated files

.PHONY: proto
proto: $(DEV) ## write the Python code of the API from proto/
	$(BIN)/python tools/proto.py generate

UV_COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --no-config --universal \
	--python-version 3.11 --generate-hashes --no-emit-index-url $(UV_COMPILE_FLAGS)

.PHONY: lock
lock: $(DEV) ## compile the pinned requirements again (newest versions: make lock UV_COMPILE_FLAGS=--upgrade)
	for list in runtime build dev; do $(UV_COMPILE) requirements/$$list.in -o requirements/$$list.txt >/dev/null; done
	cd tools && npm install --package-lock-only --ignore-scripts --silent

##@ Help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

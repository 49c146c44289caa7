# Everything that this project can do, from a fresh clone. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_BIN := tools/node_modules/.bin
RUNTIME := $(VENV)/.runtime.stamp
DEV := $(VENV)/.dev.stamp
NODE := tools/node_modules/.stamp
PIP_INSTALL := $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check
# Compiled even where PYTHONDONTWRITEBYTECODE is set: else every start of the program would do it again.
COMPILE_SOURCES = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q src

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

$(RUNTIME): requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(PIP_INSTALL) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(COMPILE_SOURCES)
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
	--python-version 3.11 --generate-hashes --no-emit-index-url $(LOCK_FLAGS)

.PHONY: lock
lock: $(DEV) ## pin the requirements again (to the newest versions: make lock LOCK_FLAGS=--upgrade)
	$(UV_COMPILE) pyproject.toml --output-file requirements/runtime.txt >/dev/null
	$(UV_COMPILE) requirements/build.in --output-file requirements/build.txt >/dev/null
	$(UV_COMPILE) --extra archive pyproject.toml requirements/build.in requirements/dev.in --output-file requirements/dev.txt >/dev/null
	cd tools && npm install --package-lock-only --ignore-scripts --silent

.PHONY: diagram
diagram: $(RUNTIME) ## write the state diagram of docs/design.md from the transition table
	$(BIN)/python tools/state_diagram.py write

##@ Checking

.PHONY: check
check: check-style check-types check-layers check-proto check-api check-diagram check-lock ## all checks below

.PHONY: check-style
check-style: $(DEV) ## ruff: rules and format
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet

.PHONY: check-types
check-types: $(DEV) $(NODE) ## pyright, strict
	$(NODE_BIN)/pyright --warnings

.PHONY: check-layers
check-layers: $(DEV) ## import-linter: the layers of docs/design.md
	$(BIN)/lint-imports --no-cache --no-logo

.PHONY: check-proto
check-proto: $(DEV) ## the generated code is what protoc writes
	$(BIN)/python tools/proto.py check

.PHONY: check-api
check-api: $(NODE) ## buf: the style of the .proto files
	$(NODE_BIN)/buf lint

.PHONY: check-diagram
check-diagram: $(RUNTIME) ## the state diagram of docs/design.md is that of the code
	@$(BIN)/python tools/state_diagram.py check

.PHONY: check-lock
check-lock: ## the pinned requirements name no registry: any mirror will do
	@! grep --line-number --extended-regexp '"resolved"|://' requirements/*.txt tools/package-lock.json

.PHONY: format
format: $(DEV) ## let ruff put the code in order
	$(BIN)/ruff check --fix --quiet
	$(BIN)/ruff format --quiet

##@ Testing

PYTEST = $(COMPILE_SOURCES) && $(BIN)/python -m pytest -q $(PYTEST_FLAGS)

# What some tests need beyond the program's own needs. Where it cannot be had, they skip and say why.
.PHONY: test-programs
test-programs:
	@tools/system-packages.sh unshare=util-linux setpriv=util-linux systemd-analyze=systemd /usr/bin/python3=python3 strace || true

# A VM for the tests that need a kernel with every cgroup controller.
VM_KERNEL := build/vm-kernel
.PHONY: test-vm-programs
test-vm-programs: test-programs
	@tools/system-packages.sh qemu-system-x86_64=qemu-system-x86 /usr/lib/qemu/virtiofsd=qemu-system-common \
		/bin/busybox=busybox-static mke2fs=e2fsprogs findmnt=util-linux depmod=kmod /lib/systemd/systemd=systemd \
		/lib/systemd/system/dbus.socket=dbus && \
		{ [[ -e $(VM_KERNEL)/modules ]] || tests/system/vm/kernel.sh $(VM_KERNEL); } || true

.PHONY: test
test: $(DEV) test-vm-programs ## all tests that this machine can run (one: make test PYTEST_FLAGS='-k NAME')
	$(PYTEST)

.PHONY: test-unit
test-unit: $(DEV) ## tests of single modules
	$(PYTEST) tests/unit

.PHONY: test-integration
test-integration: $(DEV) ## tests with real processes, files and servers
	$(PYTEST) tests/integration

.PHONY: test-system
test-system: $(DEV) test-vm-programs ## tests of the whole program: kill -9, limits on a real kernel (in a VM), root
	$(PYTEST) tests/system

##@ Trying

.PHONY: demo
demo: $(RUNTIME) ## see it work: a server, jobs, live output, a crash that nobody notices
	@$(COMPILE_SOURCES) && $(BIN)/python demo/demo.py

# OpenSSH, to be measured beside. Where systemd runs, its package would start a server for good: that is the user's to want.
.PHONY: bench-programs
bench-programs:
	@[[ -d /run/systemd/system ]] || tools/system-packages.sh ssh=openssh-client /usr/sbin/sshd=openssh-server || true

.PHONY: bench
bench: $(RUNTIME) bench-programs ## measure latency, throughput and memory beside OpenSSH and the limits of the machine
	@$(COMPILE_SOURCES) && $(BIN)/python -m benchmarks $(BENCH_FLAGS)

##@ Housekeeping

.PHONY: clean
clean: ## remove everything that make made, .venv included
	rm -rf $(VENV) tools/node_modules build dist .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

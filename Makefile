# Table of contents of every task.  `make` lists them, `make V=1 TARGET` shows the commands.

CLANG        ?= clang
CLANG_FORMAT ?= clang-format
LLVM_STRIP   ?= llvm-strip
PYTHON       := .venv/bin/python
# Debian 12's tools are what CI runs: clang 14, clang-format 14, libbpf 1.1; Python 3.11 or later.

BPF_CFLAGS   := -g -O2 -Wall -Werror -target bpf -mcpu=v3 -Ibpf_src/include \
	-idirafter /usr/include/$(shell gcc -print-multiarch)
BPF_OBJECT   := loader/yett_loader/data/yett.bpf.o
FFI          := loader/yett_loader/_libbpf
MODULE       := loader/yett_loader/data/libyett_deny.so
C_FILES       = $(shell git ls-files 'bpf_src/*.[ch]' 'loader/*.c' 'tests/*.[ch]')
SCRIPTS       = $(shell git grep -lE '^\#!.*\bbash' -- .ci scripts)

SHELL        := bash
.SHELLFLAGS  := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-cluster lab-down cluster-up cluster-down test test-bpf test-cluster test-kernels fuzz bench soak \
	lint lint-python lint-c lint-scripts fmt bpf bindings crds wheel clean
$(if $(V),,.SILENT:)

help: ## this list
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what this machine lacks, make .venv
	scripts/setup

demo: bpf bindings ## the walk-through: three pods, a policy, three curls, flow lines; cleans up
	scripts/demo

demo-cluster: bpf bindings ## the walk-through on a real three-node Kubernetes (see cluster-up); cleans up
	scripts/demo-cluster

lab-down: ## remove what a lab left on this machine
	.venv/bin/yettctl lab down

cluster-up: bpf $(MODULE) ## a three-node Kubernetes on this machine, without Docker; its first run compiles ten minutes
	scripts/cluster up

cluster-down: ## remove it, whole
	scripts/cluster down

test: bpf bindings ## every test but those on a cluster; needs root
	$(PYTHON) -m pytest $(ARGS)

test-bpf: bpf bindings ## only the tests that need the kernel; needs root
	$(PYTHON) -m pytest -m 'bpf or net' $(ARGS)

test-cluster: bpf bindings ## the tests on a real Kubernetes (see cluster-up); needs root
	scripts/setup cluster
	CLUSTER=1 $(PYTHON) -m pytest -m cluster $(ARGS)

test-kernels: bpf ## load and run the programs on Linux 6.1, 6.12 and this one; KERNELS="6.1 running" for some
	scripts/test-kernels $(KERNELS)

fuzz: bindings ## property tests with 100 times the examples and fresh seeds
	$(PYTHON) -m pytest -m 'not bpf and not net' --hypothesis-profile=fuzz $(ARGS)

bench: bpf bindings ## measure packets beside peers, the control plane at scale, the sidecar; writes docs/benchmarks*.md
	scripts/setup bench cluster
	scripts/bench $(ARGS)

soak: bpf bindings ## ten minutes of short connections through the sidecar; ARGS="--seconds 60" for less
	scripts/setup bench
	scripts/soak-sidecar $(ARGS)

lint: lint-python lint-c lint-scripts ## every static check
	scripts/check-tree

lint-python: setup
	mkdir -p build
	.venv/bin/ruff check --quiet && .venv/bin/ruff format --check --quiet
	$(PYTHON) -m mypy --no-error-summary
	.venv/bin/lint-imports --no-logo >build/imports.log || { cat build/imports.log; exit 1; }

lint-c:
	$(CLANG_FORMAT) --dry-run -Werror $(C_FILES)

lint-scripts: setup
	shellcheck $(SCRIPTS)

fmt: setup ## format Python and C
	.venv/bin/ruff check --fix-only --quiet && .venv/bin/ruff format --quiet
	$(CLANG_FORMAT) -i $(C_FILES)

bpf: build/yett.bpf.o $(BPF_OBJECT) ## compile the BPF programs
bindings: build/bindings.stamp $(MODULE) ## compile the cffi extension and Envoy's module in place

crds: setup ## write the CRDs from the models
	$(PYTHON) -m yett_operator.crd crds manifests/optional

wheel: bpf $(MODULE) ## a wheel with the programs in it, in build/
	rm -rf build/lib build/bdist.* && $(PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build .

clean: ## remove what was built and cached, but .venv
	rm -rf build *.egg-info $(BPF_OBJECT) $(MODULE) $(FFI)/_ffi*.so $(FFI)/_ffi.[co] .*_cache .hypothesis

# DWARF goes, BTF stays.
build/%.bpf.o: bpf_src/%.bpf.c $(wildcard bpf_src/include/*.h) Makefile | setup
	mkdir -p build && $(CLANG) $(BPF_CFLAGS) -c $< -o $@
	$(LLVM_STRIP) -g $@

$(BPF_OBJECT): build/yett.bpf.o
	mkdir -p $(@D) && cp $< $@

build/bindings.stamp: $(FFI)/build.py $(wildcard $(FFI)/*.cdef.h) bpf_src/include/yett_abi.h | setup
	mkdir -p build && rm -f $(FFI)/_ffi*.so && $(PYTHON) $(FFI)/build.py >build/bindings.log
	touch $@

$(MODULE): loader/yett_loader/sidecar/deny.c Makefile
	mkdir -p $(@D) && $(CC) -std=gnu11 -O2 -Wall -Wextra -Werror -fPIC -fvisibility=hidden -shared -o $@ $<

# SPDX-License-Identifier: GPL-2.0-only
# Every command of the project. `make` prints this list; a target that is not in it is not supported.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
PY := $(VENV)/bin/python
STAMP := build/stamps

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up -----------------------------------------------------------------------------------------------------------
.PHONY: setup packages venv lab second-python
setup: lab second-python ## install what the machine lacks: Debian packages, Python packages, kernels and the VM image

# Install the Debian packages of a list, only those that are missing.
INSTALL = @missing=; for package in $$(sed 's/\#.*//' $(1)); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q ' installed' || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
		echo "== Debian packages:$$missing"; apt-get update; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; fi

packages: ## Debian packages of qemu/packages.txt, only those that are missing
	$(call INSTALL,qemu/packages.txt)

lab: packages venv ## kernels, headers and the VM image in ~/.cache/vcs (two minutes once)
	@PYTHONPATH=qemu $(PY) -m harness.setup

venv: $(STAMP)/venv ## the Python packages alone, in .venv

second-python: venv ## another CPython (3.14 in WebAssembly, the npm package pyodide), for comparing traces of the simulation
	@if ! command -v npm >/dev/null; then apt-get update; DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs npm; fi
	@$(PY) -m tests.sim.second_python

$(STAMP)/venv: pyproject.toml | packages
	@echo "== Python packages"
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print("\n".join(p["dependencies"] + p["optional-dependencies"]["dev"]))' > $(VENV)/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	@mkdir -p $(STAMP) && touch $@

# --- what is made from kmod/spec/*.yaml --------------------------------------------------------------------------------
.PHONY: gen gen-check
gen: venv ## make netlink tables, uapi header, tracepoints, sysfs files and their pages from kmod/spec/*.yaml
	@$(PY) kmod/spec/gen.py

gen-check: venv ## fail when a generated file is stale
	@$(PY) kmod/spec/gen.py --check

# --- the kernel module ------------------------------------------------------------------------------------------------
KERNELS ?= 6.1 6.12
KMOD_SOURCES := $(shell find kmod -name '*.[ch]' ! -name '*.mod.c' ! -name vcs_sample_consumer.c) kmod/Kbuild kmod/Makefile docs/sample_consumer.c
KDIR_OF = $$(PYTHONPATH=qemu $(PY) -m harness.kernels --field=kdir $(1))
.PHONY: kmod lint-kmod
kmod: $(KERNELS:%=build/kmod/%/.built) ## vcs.ko, its test modules and the sample, for every kernel in KERNELS, into build/kmod/

build/kmod/%/.built: $(KMOD_SOURCES) | venv
	@echo "== module for $*"
	@kdir=$(call KDIR_OF,$*); mkdir -p $(@D); \
	flock $(@D).lock $(MAKE) -s -C kmod -j2 KDIR=$$kdir OUT=$(CURDIR)/$(@D) WERROR=1 >$(@D)/build.log 2>&1 || { cat $(@D)/build.log; exit 1; }
	@touch $@

lint-kmod: venv ## the module once more: W=1, sparse and kernel-doc on every kernel, checkpatch --strict
	@for series in $(KERNELS); do echo "== W=1, sparse, kernel-doc: $$series"; kdir=$(call KDIR_OF,$$series); \
	  $(MAKE) -s -C kmod KDIR=$$kdir OUT=$(CURDIR)/build/kmod-lint/$$series WERROR=1 LINT=1; \
	  perl $$kdir/scripts/kernel-doc -none -Werror kmod/include/linux/vcs.h; done
	@echo "== checkpatch"; tree=$$(PYTHONPATH=qemu $(PY) -m harness.source); \
	check() { perl $$tree/scripts/checkpatch.pl --no-tree --strict --terse --show-types --no-summary "$$@"; }; \
	check -f $(filter-out kmod/trace.h kmod/compat.h,$(filter %.c %.h,$(KMOD_SOURCES))); \
	check --ignore PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE -f kmod/trace.h; \
	check --ignore LINUX_VERSION_CODE,CONSTANT_COMPARISON -f kmod/compat.h

# --- packages ---------------------------------------------------------------------------------------------------------
.PHONY: deb
deb: packages venv ## the Debian packages vcs-dkms and vcs-cluster, into build/deb/
	@PYTHONPATH=qemu $(PY) packaging/deb/build.py build/deb

# --- the lab ----------------------------------------------------------------------------------------------------------
.PHONY: shell demo
NODES ?= 3
KERNEL ?= 6.12
SETUP ?= vcslab.shell:setup
KILLS ?= 1
shell: lab kmod ## a running cluster with a prompt on each node (NODES=3 KERNEL=6.12 SETUP=module:function)
	@PYTHONPATH=qemu $(PY) -m harness.shell --nodes $(NODES) --kernel $(KERNEL) --disk 512 $(if $(SETUP),--setup $(SETUP))

demo: lab kmod ## the main job: three machines, GFS2, a node killed, the others carrying on (KILLS=1 KERNEL=6.12)
	@PYTHONPATH=qemu $(PY) -m vcslab.demo --kernel $(KERNEL) --kills $(KILLS)

# --- tests ------------------------------------------------------------------------------------------------------------
# Two runs: what needs no machine goes two at a time, virtual machines one after the other and undisturbed.
.PHONY: test test-quick test-vm
test: test-quick test-vm ## set-up, then every test (of the faults and the longest files those whose turn it is); nothing may be skipped

test-quick: lab second-python gen-check lint lint-kmod ## unit, simulation and process tests, no virtual machine
	@$(PY) -m pytest -q -n 2 -m "not vm" tests

# Of the faults a subset (docs/faults.md), patient enough for a machine that has other work, too.
test-vm: lab kmod ## the module's contract on both kernels, the lab, three-node clusters, a fault of each class (K=pattern)
	@SLOW=$(or $(SLOW),2) $(PY) -m pytest -q -m vm $(if $(K),-k '$(K)') --ignore=tests/kernel/debug tests/kernel tests/cluster tests/tools

.PHONY: vm-debug
vm-debug: lab ## the kernel suite on a kernel of our own: KASAN, lockdep, kmemleak, KUnit; the lines covered (built once; FUZZ=1000000 K=pattern)
	@$(MAKE) -s kmod KERNELS=debug
	@rm -rf build/gcov; VCS_KERNEL=debug GCOV=$(CURDIR)/build/gcov $(if $(FUZZ),FUZZ=$(FUZZ)) \
	  $(PY) -m pytest -q -m vm --timeout=7200 $(if $(K),-k '$(K)') --ignore=tests/kernel/test_read_path.py tests/kernel
	$(if $(K),,@PYTHONPATH=qemu $(PY) -m tests.kernel.debug.coverage build/gcov)

.PHONY: restarts
restarts: lab kmod ## dlm_glue and vcsd restarted twenty times each under a GFS2 load: longest stall, fences (RESTARTS=20 STALL=3)
	@RESTARTS=$(or $(RESTARTS),20) STALL=$(or $(STALL),3) $(PY) -m pytest -q -s -m vm tests/cluster/test_restart.py

.PHONY: faults
faults: lab kmod ## the fault matrix, all of it, in one cluster (FAULTS=part,of,names SEED=7 FENCING=self SLOW=3)
	@FAULTS=$(or $(FAULTS),all) $(if $(filter-out file,$(origin SEED)),SEED=$(SEED)) $(PY) -m pytest -q -m vm tests/cluster/faults

# --- style ------------------------------------------------------------------------------------------------------------
PYTHON := vcs bridge membership dlm_glue tools qemu/harness qemu/vcslab bench tests
.PHONY: lint man-table
lint: venv ## ruff, mypy (and that it saw every file), codespell where it is installed
	@$(PY) -m ruff check $(PYTHON) kmod packaging conftest.py
	@want=$$(find $(PYTHON) -name '*.py' | wc -l); \
	said=$$($(PY) -m mypy $(PYTHON) 2>&1) || { echo "$$said"; exit 1; }; \
	echo "$$said" | grep -q "no issues found in $$want source files" || { echo "$$said; there are $$want files"; exit 1; }; \
	if command -v codespell >/dev/null; then git ls-files -z '*.md' '*.py' '*.c' '*.h' | xargs -0 codespell --quiet-level 3; fi; \
	echo "lint: $$want Python files: no finding"

man-table: venv ## put the table of all keys into docs/man/cluster.toml.5.md
	@$(PY) -m vcs.config.schema docs/man/cluster.toml.5.md

# --- simulation -------------------------------------------------------------------------------------------------------
.PHONY: sim sim-canaries
SECONDS ?= 480
SEED ?= 1
sim: venv ## as many seeds as fit in SECONDS=480, at least 1000; N=5000 so many; N=1 SEED=7 one with its log (LAYER=engine)
	@$(PY) -m tests.sim.batch --seed $(SEED) --seconds $(SECONDS) $(if $(N),--count $(N)) $(if $(LAYER),--layer $(LAYER)) $(if $(filter 1,$(N)),--trace)

sim-canaries: venv ## break each rule on purpose: the checkers must catch it
	@$(PY) -m tests.sim.canaries

# --- benchmarks -------------------------------------------------------------------------------------------------------
.PHONY: bench-packages bench-totem
RUNS ?= 5
MINUTES ?= 10
bench-packages: packages ## Debian packages of the benchmarks: the peers
	$(call INSTALL,bench/packages.txt)

bench-totem: venv bench-packages ## our engine beside corosync, as root (ONLY=kill,silent,leave,throughput,latency,loaded,frozen,growth RUNS=5 MINUTES=10 SIZES=3,16)
	@$(PY) -m bench.totem --runs $(RUNS) --minutes $(MINUTES) $(if $(ONLY),--only $(ONLY)) $(if $(SIZES),--nodes $(SIZES))

.PHONY: bench-failover
bench-failover: lab kmod ## a power cut under GFS2, ours beside corosync + dlm_controld, in virtual machines (ONLY=ours,default,tuned RUNS=5)
	@PYTHONPATH=qemu $(PY) -m bench.failover --runs $(RUNS) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-plock
PLOCK_SECONDS ?= 5
bench-plock: lab kmod ## fcntl locks on GFS2, dlm_glue beside dlm_controld, in virtual machines (ONLY=ours,default,ownership RUNS=5 PLOCK_SECONDS=5)
	@PYTHONPATH=qemu $(PY) -m bench.plock --runs $(RUNS) --seconds $(PLOCK_SECONDS) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-kernel
bench-kernel: lab kmod ## what the switch itself costs, in a virtual machine per kernel (ONLY=reads,views,rounds,groups,nodes RUNS=5)
	@PYTHONPATH=qemu $(PY) -m bench.kernel --runs $(RUNS) --kernels "$(KERNELS)" $(if $(ONLY),--only $(ONLY))

.PHONY: golden fuzz-totem churn-totem
golden: venv ## record the scenarios' logs anew (tests/golden/totem, docs/scenarios.md); read the difference before you commit it
	@$(PY) -m tests.scenarios.golden
	@$(PY) -m tests.scenarios.index

fuzz-totem: venv ## wrong frames against a live ring: N=1000000
	@$(PY) -m tests.fuzz.run --frames $(if $(filter command\ line,$(origin N)),$(N),1000000)

churn-totem: venv ## configuration changes without end, memory watched: N=10000
	@$(PY) -m tests.fuzz.churn --changes $(if $(filter command\ line,$(origin N)),$(N),10000)

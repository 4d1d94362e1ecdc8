# Start with `make run` and `make test`. Both install missing dependencies first.
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
# The version that the targets name; later versions need a newer Python than the portal.
PEER_PACKAGE := mcp-contextforge-gateway==1.0.7
# Three workers for the two cores of CI, because tests often wait for the browser, servers or PostgreSQL.
# Each file runs in one worker, because most files start their own peers once. Files run in their given order and not by
# number of tests, which would run the few slow journeys last.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder
TESTS ?= tests
UPGRADE ?=
MKDOCS_CONFIG ?= mkdocs.yml

# uv and Node.js have their own certificate lists; make them use the machine's list.
export UV_SYSTEM_CERTS ?= 1
# The tests start hundreds of processes. Without bytecode, each spends seconds compiling a thousand files.
unexport PYTHONDONTWRITEBYTECODE
SYSTEM_CERTS := $(wildcard /etc/ssl/certs/ca-certificates.crt)
ifneq ($(SYSTEM_CERTS),)
export NODE_EXTRA_CA_CERTS ?= $(SYSTEM_CERTS)
endif

UV_PIP := $(BIN)/uv pip install --quiet --python $(BIN)/python
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# uv and pip install from the same hashed files. pip is used if uv is not available, and is half a minute slower.
# $(1) are the arguments for both, $(2) additional arguments for uv.
install_with = { [ -x $(BIN)/uv ] && $(UV_PIP) $(2) $(1); } || $(PIP) $(1)
PYTEST := $(BIN)/python -m pytest -p tests.support.peers
LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate $(UPGRADE)

.PHONY: help install run demo test test-quick lint format types layers floors browser docs screenshots cluster cluster-test \
  faults bench bench-peers bench-load sbom lock clean dev packages peers

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 18

$(BIN)/python:
	@echo "· creating $(VENV)"
	@. .ci/services.sh; make_venv $(VENV) "$(PY)"

$(VENV)/.build: requirements-build.txt | $(BIN)/python
	@$(PIP) --require-hashes -r requirements-build.txt || echo "· uv is not available for this machine; using pip"
	@touch $@

$(VENV)/.install: requirements.txt $(VENV)/.build
	@echo "· installing dependencies"
	@$(call install_with,--require-hashes -r requirements.txt)
	@touch $@

$(VENV)/.editable: pyproject.toml $(VENV)/.install
	@$(call install_with,--no-deps -e .,--no-build-isolation)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.editable
	@echo "· installing development dependencies"
	@$(call install_with,--require-hashes -r requirements-dev.txt)
	@touch $@

install: $(VENV)/.editable ## install the portal and its dependencies in .venv; creates .venv/bin/portal
dev: $(VENV)/.dev

run: install ## serve http://127.0.0.1:8000 with SQLite in var/
	@exec $(BIN)/portal serve

demo: install ## same as run, with sample servers, a person for each role and a real MCP server
	@exec $(BIN)/portal demo

packages:
	@. .ci/services.sh; install_packages

$(NPM)/.installed: tests/npm/package-lock.json tests/npm/.npmrc
	@echo "· installing npm packages for the tests"
	@cd tests/npm && npm ci --no-audit --no-fund --loglevel=error </dev/null >/dev/null
	@touch $@
peers: packages $(NPM)/.installed

test: dev peers lint types layers ## run every check that CI runs: lint, types, layers and all tests, with real servers
	@. .ci/services.sh; start_services; PORTAL_REQUIRE_ALL=1 $(PYTEST) $(PYTEST_ARGS) $(TESTS)

test-quick: dev ## run the tests that need neither PostgreSQL nor Redis (TESTS=tests/web for a part)
	@TEST_DATABASE=sqlite $(PYTEST) $(PYTEST_ARGS) $(TESTS)

browser: dev peers ## run only the browser tests, in Chromium
	@. .ci/services.sh; start_services; PORTAL_REQUIRE_ALL=1 $(PYTEST) tests/journeys

lint: dev ## check rules and format of code, templates and style sheets
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "✗ not formatted; run 'make format':" >&2; \
	  $(BIN)/ruff format --check . >&2; }
	@$(BIN)/djlint --check --quiet templates >/dev/null 2>&1 || { echo "✗ not formatted; run 'make format':" >&2; \
	  $(BIN)/djlint --check templates >&2; exit 1; }
	@$(BIN)/djlint --lint --quiet templates >$(VENV)/djlint.log 2>&1 || { cat $(VENV)/djlint.log >&2; exit 1; }
	@$(BIN)/python -m tests.support.styles --check static/styles/*.css

format: dev ## format code, templates and style sheets, and apply ruff's automatic fixes
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format .
	@$(BIN)/djlint --reformat --quiet templates || $(BIN)/djlint --check --quiet templates # it fails where it changed some
	@$(BIN)/python -m tests.support.styles static/styles/*.css

types: dev ## check types with mypy --strict
	@$(BIN)/mypy --no-error-summary

layers: dev ## check with import-linter that imports only go down
	@$(BIN)/lint-imports --no-logo >$(VENV)/layers.log || { cat $(VENV)/layers.log >&2; exit 1; }

floors: layers

docs: dev ## build the documentation as a website (FOLDER=var/docs); fails on broken links
	@# No --quiet: it hides warnings and then does not count them, and a broken link is a warning.
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file $(MKDOCS_CONFIG) \
	  --site-dir $(abspath $(or $(FOLDER),var/docs)) >$(VENV)/docs.log 2>&1 || { cat $(VENV)/docs.log >&2; exit 1; }

screenshots: dev packages ## take the screenshots of README and docs from the demo (FOLDER=docs/screenshots)
	@$(BIN)/python -m tests.support.screenshots $(or $(FOLDER),docs/screenshots)

cluster: dev peers ## run two web processes and two gateways behind nginx, two workers, PostgreSQL and Redis, until Ctrl-C
	@exec $(BIN)/python -m tests.support.cluster

cluster-test: dev peers ## run the tests of the cluster
	@. .ci/services.sh; start_services; CLUSTER_IN_FULL=1 PORTAL_REQUIRE_ALL=1 $(PYTEST) tests/cluster

faults: dev peers ## run the tests that cause real failures, more often and longer than `make test`; prints figures
	@. .ci/services.sh; start_services; FAULTS_IN_FULL=1 PORTAL_REQUIRE_ALL=1 $(PYTEST) tests/faults

bench: dev packages ## measure speed at two sizes and compare with bare Flask; writes bench/RESULTS.md
	@$(BIN)/python -m bench

bench-peers: dev packages $(PEER)/.installed ## measure and compare with IBM ContextForge, which is installed in var/peers
	@$(BIN)/python -m bench peers

bench-load: dev packages ## simulate 200 people and 50 API keys on PostgreSQL and Redis for SECONDS=300
	@. .ci/services.sh; start_services; BENCH_SECONDS=$(or $(SECONDS),300) $(BIN)/python -m bench load

# Installed in a separate environment and used only for comparison. The portal does not depend on it.
$(PEER)/.installed: | $(VENV)/.build
	@echo "· installing $(PEER_PACKAGE) in $(PEER)"
	@$(BIN)/python -m venv --clear $(PEER)
	@{ [ -x $(BIN)/uv ] && $(BIN)/uv pip install --quiet --python $(PEER)/bin/python $(PEER_PACKAGE); } || \
	  $(PEER)/bin/python -m pip install -qq --disable-pip-version-check $(PEER_PACKAGE)
	@touch $@

sbom: dev ## write var/sbom.json, a CycloneDX bill of materials of .venv
	@mkdir -p var
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON -o var/sbom.json $(BIN)/python
	@echo "· var/sbom.json"

lock: $(VENV)/.build ## pin the dependencies again (UPGRADE=--upgrade for newer versions)
	@printf 'setuptools>=77\nuv\n' | $(LOCK) - -o requirements-build.txt
	@$(LOCK) pyproject.toml -o requirements.txt
	@$(LOCK) --group dev -c requirements.txt -o requirements-dev.txt
	@cd tests/npm && npm install --package-lock-only --no-audit --no-fund --loglevel=error </dev/null

clean: ## delete what the other commands created, except var/, which contains your data
	@rm -rf $(VENV) $(NPM) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

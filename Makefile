# make run   the gateway with its quickstart, on http://127.0.0.1:8080 (PORT= and GATEWAY_DATA_DIR= move it)
# make replicas  two gateways as one: PostgreSQL, Redis, OPA and a balancer, on the same address
# make demo  a whole story, against the gateway that runs or one of its own; BY_HAND=1 lets you be the person
# make test  the whole test suite
# make drill what takes minutes: races, chaos, real clients that wait
# make drill-streams  100,000 model answers through the real SDKs, with figures; STREAMS= and SEED= choose others
# make test-shared  what one gateway must do, on PostgreSQL and Redis
# make lint  format, lint, types, import contracts
# make bench the bench of docs/performance.md; make bench-replicas of both footings
# make lock  resolve the locks anew

PYTHON ?= python3
PORT ?= 8080
GATEWAY_DATA_DIR ?= var
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
INSTALL := $(UV) pip install --quiet --require-hashes --compile-bytecode
PYTEST_ARGS ?= -n 2 --dist worksteal
STREAMS ?= 100000
SEED ?= s1
# Written for one gateway; on the shared footing they must not notice.
SHARED := tests/admin tests/govern tests/invariants/test_3_votes_bind.py tests/invariants/test_4_races.py \
	tests/invariants/test_4_the_servers_word.py \
	tests/invariants/test_5_distinct_persons.py tests/invariants/test_13_hidden.py
# Drills that measure how long something takes: nothing else may run beside them.
MEASURED := tests/chaos tests/e2e/test_waiting_speed.py
# The npm clients are tested where there is npm; without it their tests are skipped, or fail with GATEWAY_TEST_STRICT=1.
NPM_CLIENTS := $(if $(shell command -v npm),.venv-npm/.made)

# Open Policy Agent, for the tests that ask a real one: built where there is go, else its library from a Python wheel.
OPA := github.com/open-policy-agent/opa@v1.22.2

.DEFAULT_GOAL := help
.PHONY: help run replicas demo test test-shared drill drill-streams lint types contracts format bench bench-replicas lock clean

help:
	@sed -n '1,/^$$/p' Makefile | sed 's/^# //'

$(VENV)/.made: requirements/bootstrap.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "The gateway needs Python 3.11 or newer; set PYTHON=/path/to/it." >&2; exit 2; }
	@echo "Making $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	@touch $@

$(VENV)/.runtime: $(VENV)/.made requirements/runtime.lock pyproject.toml
	@echo "Installing the locked dependencies ..."
	@VIRTUAL_ENV=$(VENV) $(INSTALL) -r requirements/runtime.lock
	@VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q gateway
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@echo "Installing what the tests need ..."
	@VIRTUAL_ENV=$(VENV) $(INSTALL) -r requirements/dev.lock
	@touch $@

.venv-sdk/.made: $(VENV)/.made requirements/sdk.lock
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-sdk
	@VIRTUAL_ENV=.venv-sdk $(INSTALL) -r requirements/sdk.lock
	@touch $@

.venv-git/.made: $(VENV)/.made requirements/git-server.lock
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-git
	@VIRTUAL_ENV=.venv-git $(INSTALL) -r requirements/git-server.lock
	@touch $@

.venv-npm/.made: tests/e2e/npm/package.json tests/e2e/npm/package-lock.json
	@mkdir -p .venv-npm
	@cp tests/e2e/npm/package.json tests/e2e/npm/package-lock.json .venv-npm/
	@npm ci --prefix .venv-npm --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

.opa/.made: $(VENV)/.made requirements/opa.lock
	@mkdir -p .opa
	@if command -v go >/dev/null && echo "Building $(OPA) ..." && GOBIN="$(CURDIR)/.opa" CGO_ENABLED=0 go install $(OPA); then :; else \
		echo "Getting OPA's library from its wheel ..."; \
		$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.14 --require-hashes --dest .opa -r requirements/opa.lock && \
		$(BIN)/python -c 'import glob, zipfile; open(".opa/libopabridge.so", "wb").write(zipfile.ZipFile(glob.glob(".opa/*.whl")[0]).read("opa_bindings/libopabridge.so"))' && \
		rm -f .opa/*.whl; fi
	@touch $@

run: $(VENV)/.runtime
	@GATEWAY_DATA_DIR=$(GATEWAY_DATA_DIR) exec $(BIN)/gateway quickstart --port $(PORT)

replicas: $(VENV)/.runtime .opa/.made
	@.ci/packages postgresql redis-server haproxy
	@GATEWAY_DATA_DIR=$(GATEWAY_DATA_DIR) exec $(BIN)/python -m gateway.quickstart.replicas --port $(PORT)

demo: $(VENV)/.runtime .venv-sdk/.made
	@GATEWAY_DATA_DIR=$(GATEWAY_DATA_DIR) .venv-sdk/bin/python -m gateway.quickstart.demo $(if $(BY_HAND),--by-hand)

# Many tests wait for real servers, so that a busy machine can fail one. Those that fail are run once more, alone and
# named; a fault of the code fails them again.
define tests
$(BIN)/python -m pytest $(1) || { \
	  echo "== Once more, alone: the tests that failed. Those that pass now depend on how busy the machine is."; \
	  $(BIN)/python -m pytest $(1) -n 0 -vv --last-failed --last-failed-no-failures none --maxfail 3; }
endef

test: $(VENV)/.dev .venv-sdk/.made .venv-git/.made $(NPM_CLIENTS)
	@$(call tests,$(PYTEST_ARGS))

test-shared: $(VENV)/.dev
	@export GATEWAY_TEST_FOOTING=shared; $(call tests,$(PYTEST_ARGS) $(SHARED))

drill: $(VENV)/.dev .venv-sdk/.made $(NPM_CLIENTS)
	@$(call tests,-m drill -n 2 --dist loadfile $(addprefix --ignore=,$(MEASURED)))
	@$(call tests,-m drill $(MEASURED))

# Where Python is told to keep no compiled files, each worker of each run would rewrite and compile all tests anew.
test test-shared drill: export PYTHONDONTWRITEBYTECODE =

drill-streams: $(VENV)/.dev .venv-sdk/.made .venv-npm/.made
	@$(BIN)/python -m tests.sdk_streams.drill --seed $(SEED) --count $(STREAMS) --kept-every 10

lint: $(VENV)/.dev
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

.venv-litellm/.made: $(VENV)/.made requirements/litellm-proxy.lock
	@echo "Installing LiteLLM's proxy for comparison ..."
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python .venv-litellm
	@VIRTUAL_ENV=.venv-litellm $(INSTALL) -r requirements/litellm-proxy.lock
	@touch $@

bench: $(VENV)/.dev .venv-litellm/.made
	@$(BIN)/python -m bench.run $(BENCH_ARGS)

bench-replicas: $(VENV)/.dev
	@$(BIN)/python -m bench.records
	@$(BIN)/python -m bench.replicas

lock:
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/bootstrap.lock requirements/bootstrap.in
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/runtime.lock pyproject.toml requirements/build.in
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/dev.lock pyproject.toml requirements/build.in --group dev
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/sdk.lock requirements/sdk.in
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/git-server.lock requirements/git-server.in
	@$(UV) pip compile --quiet --universal --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/litellm-proxy.lock requirements/litellm-proxy.in
	@$(UV) pip compile --quiet --python-version 3.14 --no-deps --generate-hashes --no-annotate --custom-compile-command "make lock" -o requirements/opa.lock requirements/opa.in

clean:
	@rm -rf .venv .venv-sdk .venv-git .venv-npm .opa var .mypy_cache .ruff_cache .hypothesis

# One command each on a machine that has python3 (3.11 or later) and make.
PYTHON ?= python3
DURATION ?= 20
RATE ?= 50
SEED ?= 1
JSON ?=
STEPS ?= 1000000
LOCK = .venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet
PIP = .venv/bin/python -m pip --quiet --disable-pip-version-check install --no-deps

# Every process of a test run reads the same modules: compiled once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-fast test-browser screenshots schema fmt check faults bench mutants up model lock clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

demo: .venv/run  ## live inquiries from arrival to payment (DURATION=20 RATE=50 JSON=out.json STAY=1)
	.venv/bin/marketplace demo --duration $(DURATION) --rate $(RATE) $(if $(JSON),--json $(JSON)) $(if $(STAY),--stay)

up: .venv/run  ## run everything on this machine until Ctrl-C
	.venv/bin/marketplace up

test: .venv/dev  ## run all tests
	.venv/bin/python -m pytest

test-fast: .venv/dev  ## the rules, the house and one lead's walk, in under a minute
	.venv/bin/python -m pytest -m "not slow" tests/routing tests/billing tests/house tests/walk tests/marketplace/intake

test-browser: .venv/browser /usr/bin/chromium  ## every page and a journey per user, in a real browser
	.venv/bin/python -m pytest -n 0 tests/browser

screenshots: .venv/browser /usr/bin/chromium  ## the pictures of docs/screenshots, taken anew
	.venv/bin/python -m tests.browser.screenshots

schema: .venv/dev  ## migrations/schema.sql, printed from what the migrations make
	.venv/bin/python -m tests.house.schema

fmt: .venv/dev  ## put imports and lines in order
	.venv/bin/ruff check --fix --quiet .
	.venv/bin/ruff format .

check: .venv/browser  ## style, types, import contracts, tests
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m pytest

faults: DURATION = 120
faults: RATE = 30
faults: JSON = build/faults.json
faults: .venv/dev  ## kills, cuts and races while leads flow, and what held (DURATION=120 SEED=1 BREAK=wallet_check)
	.venv/bin/python -m tests.harness.command --duration $(DURATION) --seed $(SEED) --rate $(RATE) --json $(JSON) \
		$(if $(PUBLISH),--publish $(PUBLISH)) $(if $(BREAK),--break $(BREAK))

bench: JSON = build/bench.json
bench: .venv/dev  ## beside a bare pipeline on the same engines, up to 40 minutes (QUICK=1 for 4, ONLY=award, PUBLISH=docs/BENCHMARKS.md)
	.venv/bin/python -m benchmarks.command --json $(JSON) $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) \
		$(if $(LEADS),--leads $(LEADS)) $(if $(PUBLISH),--publish $(PUBLISH))

model: .venv/dev  ## a million random moves over the rules, every promise checked after each (STEPS=1000000)
	.venv/bin/python -m tests.model.machine --steps $(STEPS)

mutants: .venv/dev  ## some 60 deliberate breaks, each with the test that must notice it (ONLY=name)
	.venv/bin/python -m tests.mutants.command --json build/mutants.json $(if $(ONLY),--only $(ONLY))

lock: .venv/dev  ## resolve the newest versions and pin each by its hashes, naming no index
	$(LOCK) --group build --upgrade --output-file requirements-build.lock
	$(LOCK) pyproject.toml --upgrade --output-file requirements.lock
	$(LOCK) pyproject.toml --extra embedded --constraint requirements.lock --upgrade --output-file requirements-embedded.lock
	$(LOCK) pyproject.toml --extra learning --constraint requirements.lock --upgrade --output-file requirements-learning.lock
	$(LOCK) pyproject.toml --extra embedded --extra learning --group dev --constraint requirements-embedded.lock \
		--constraint requirements-learning.lock --upgrade --output-file requirements-dev.lock
	$(LOCK) pyproject.toml --extra embedded --extra learning --group dev --group browser --constraint requirements-dev.lock \
		--upgrade --output-file requirements-browser.lock

clean:  ## remove the environment, the embedded data and all caches
	if [ -L .data/elsewhere ]; then rm -rf "$$(readlink .data/elsewhere)"; fi
	rm -rf .venv .data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything that runs the service with engines of its own. A stamp is newer than the files it depends on, or is made again.
.venv/run: requirements-embedded.lock requirements-build.lock pyproject.toml
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements-embedded.lock
	$(PIP) --require-hashes -r requirements-build.lock
	$(PIP) --no-build-isolation --editable .
	touch $@

# What tests it besides: the same versions and more.
.venv/dev: .venv/run requirements-dev.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	touch $@

# What drives a browser besides.
.venv/browser: .venv/dev requirements-browser.lock
	$(PIP) --require-hashes -r requirements-browser.lock
	touch $@

# Debian's own browser: installed where we may, asked for where we may not.
/usr/bin/chromium:
	if command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	fi
	test -x $@ || { echo "Browser tests need Debian's chromium at $@: apt-get install chromium" >&2; exit 1; }

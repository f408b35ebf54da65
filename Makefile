# Every target makes what it needs; only Python 3.11 or later must be installed.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: help
help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

# Tests use what is shipped: locked versions, checked by hash. REQUIREMENTS=requirements.txt: the newest that are allowed.
REQUIREMENTS ?= requirements.lock

$(VENV)/run.stamp: $(REQUIREMENTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS)
	@touch $@

$(VENV)/rhythm.stamp: $(VENV)/run.stamp requirements-rhythm.lock
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $(REQUIREMENTS:requirements%=requirements-rhythm%)
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.txt requirements-formats.txt requirements-rhythm.txt requirements-dask.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: demo
demo: $(VENV)/run.stamp $(if $(filter rhythm,$(METHOD)),$(VENV)/rhythm.stamp)  ## Anonymize real ECG that comes with the repository; no server needed (METHOD=rhythm: the shape removed)
	@METHOD=$(METHOD) $(RUN) -m examples.demo

ENV_FILE ?= .env

.PHONY: influxd s3-server demo-influx demo-influx-stop replay
influxd:  ## Build the InfluxDB 2 server for tests and demos, once (Go 1.25, Rust, gcc)
	testbed/influxd/build.sh

s3-server:  ## Build the S3 server (versitygw) for tests, once (Go 1.25)
	testbed/versitygw/build.sh

demo-influx: $(VENV)/run.stamp  ## Anonymize the sample ECG in a real, throwaway InfluxDB
	@$(RUN) -m testbed.demo_influx

demo-influx-stop: $(VENV)/run.stamp  ## Stop the server that demo-influx left running
	@$(RUN) -m testbed.demo_influx --stop

replay: $(VENV)/run.stamp  ## Play the sample ECG into the raw bucket, live (ENV_FILE= WEARERS= HERTZ= SPEED= MINUTES=)
	@$(RUN) -m testbed.replay --env-file $(ENV_FILE)

# Most tests wait for a process or a server. The tests of a file run in one process and share fixtures. TEST_WORKERS=0: one by one.
TEST_WORKERS ?= 4
IN_PARALLEL := --numprocesses $(TEST_WORKERS) --dist loadfile

.PHONY: test lint types unit test-live test-faults soak bench bench-live bench-scale clean
test: lint types unit  ## Lint, types, and every test, with a real InfluxDB 2 server

lint: $(VENV)/dev.stamp  ## Style, formatting, spelling
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	@git ls-files -z | xargs -0 $(RUN) -m codespell_lib

types: $(VENV)/dev.stamp  ## Types
	$(RUN) -m mypy

unit: $(VENV)/dev.stamp
	@$(RUN) -m testbed.influxd_program
	@$(RUN) -m testbed.s3_server
	@[ -z "$$CI" ] || testbed/browser/install.sh
	$(RUN) -m pytest $(IN_PARALLEL)

test-live: $(VENV)/dev.stamp  ## Two minutes of streaming with wearers that send as they live
	LIVE_SECONDS=120 $(RUN) -m pytest -rP tests/integration/test_streaming.py -k soon

test-faults: $(VENV)/dev.stamp  ## Every fault of the matrix, often: kills at every step and at random, outages, damage
	FAULTS_FULL=1 $(RUN) -m pytest $(IN_PARALLEL) --timeout 3600 tests/faults

soak: $(VENV)/dev.stamp  ## Half an hour of wearers and random faults, then count what was lost and doubled (SOAK_MINUTES= SOAK_SEED=)
	@$(RUN) -m tests.faults.soak

WEARERS ?= 6
MINUTES ?= 30
REPEATS ?= 5

bench: $(VENV)/dev.stamp  ## Speed beside what the database itself needs, and beside libraries of others (PARTS= WEARERS= MINUTES= REPEATS=)
	@$(RUN) -m benchmarks $(PARTS) --wearers $(WEARERS) --minutes $(MINUTES) --repeats $(REPEATS)

bench-scale: $(VENV)/dev.stamp  ## Chunks handed to workers: file to Parquet with 1 and 2, the coordinator alone, Dask's own rate (PARTS=coordinator)
	@$(RUN) -m benchmarks scale --repeats $(REPEATS) $(if $(PARTS),--parts $(PARTS))

bench-live: $(VENV)/dev.stamp  ## 10, 100 and 1000 wearers that send as they live, five minutes each (LIVE_WEARERS=1000)
	@$(RUN) -m benchmarks.live $(if $(LIVE_WEARERS),--wearers $(LIVE_WEARERS))

$(VENV)/dev.stamp: requirements-utility.txt

$(VENV)/utility.stamp: $(VENV)/run.stamp requirements-utility.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-utility.txt
	@touch $@

.PHONY: utility
utility: $(VENV)/utility.stamp  ## What anonymization costs: tables, and a page with plots
	@$(RUN) -m utility

# In an environment of its own: it needs some thirty packages that nothing else here needs.
LOCKS := requirements.lock requirements-formats.lock requirements-rhythm.lock requirements-dask.lock
AUDIT := .venv-audit
AUDIT_OPTIONS ?=

$(AUDIT)/audit.stamp:
	@$(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.10,<3' \
	  || { echo "❌ pip-audit could not be installed, so no database was asked"; $(PYTHON) scripts/audit_offline.py; exit 1; }
	@touch $@

# Strict: otherwise a package missing from its database would count as free of vulnerabilities. A lock needs no resolving.
.PHONY: audit
audit: $(AUDIT)/audit.stamp  ## Ask a public database for known vulnerabilities of every locked library; without an answer, say what is not known (AUDIT_OPTIONS=)
	@mkdir -p build
	@if $(AUDIT)/bin/python -m pip_audit --strict --disable-pip --require-hashes --progress-spinner off $(AUDIT_OPTIONS) \
	  $(addprefix -r ,$(LOCKS)) 2> build/audit.txt; \
	then tail -n 1 build/audit.txt; \
	elif grep '^Found ' build/audit.txt; then echo "❌ There are known vulnerabilities: where a fixed version is out, take it (make lock LOCK_OPTIONS=--upgrade)"; exit 1; \
	else tail -n 1 build/audit.txt; \
	  echo "❌ The database could not be asked, or does not know a distribution (build/audit.txt)"; $(PYTHON) scripts/audit_offline.py; fi

# With docker or podman, whichever answers; else they say how to get one. Not part of `make test`.
BEFORE ?=

.PHONY: image test-containers
image:  ## Build the container image (docker or podman)
	@$(PYTHON) -m testbed.containers image

test-containers: $(VENV)/run.stamp  ## Build the image and run it with Compose and a real InfluxDB: demo, health, signals, backfill, upgrade (BEFORE=commit)
	@$(RUN) -m testbed.containers try $(if $(BEFORE),--before '$(BEFORE)')

# In an environment of its own, like the audit. Resolves once for all systems and all Pythons from 3.11 on.
LOCKER := .venv-lock

$(LOCKER)/lock.stamp:
	$(PYTHON) -m venv $(LOCKER)
	@$(LOCKER)/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1' \
	  || { echo "❌ uv could not be installed, so the locks are as they were"; exit 1; }
	@touch $@

.PHONY: lock release
lock: $(LOCKER)/lock.stamp  ## Pin what requirements*.txt bring, with hashes; keeps versions unless told otherwise (LOCK_OPTIONS=--upgrade)
	@for lock in $(LOCKS); do \
	  $(LOCKER)/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	    $(LOCK_OPTIONS) $$([ $$lock = requirements.lock ] || echo "--constraint requirements.lock") $${lock%.lock}.txt --output-file $$lock || exit 1; done

# Needs git and Python, no environment: scripts/make_release.py uses nothing else.
COMMIT ?= HEAD
release:  ## Make source archive, locks, bill of materials and checksums in dist/, the same bytes each time (COMMIT=)
	@$(PYTHON) scripts/make_release.py --commit '$(COMMIT)'

clean:  ## Remove what demos, tests and tools left behind; not the virtual environment
	rm -rf output/demo output/demo-influx output/utility output/advice build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Every target prepares what it needs: system packages (with apt, when they are missing), and a
# virtual environment in .venv. Nothing has to be done before.

PYTHON := .venv/bin/python
# The laboratory needs root for its namespaces; sudo asks for your password if you are not root.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI)
STAMP := .venv/.installed
# What is handed to pytest; -n 0 runs one test at a time.
PYTEST ?= -n 3 --maxschedchunk 12
ALONE := -n 1
# The status of pytest where what was asked for has no test of that kind.
NONE := 5
# What `make bench` measures; all by default.
MEASURES ?=
# How long `make fuzz` goes on.
SECONDS ?= 60
# Processes in the laboratory write here too, also those that are not root.
COVERAGE := .coverage.d
ALL_TESTS := env PYTHONDONTWRITEBYTECODE=1 HYPOTHESIS_STORAGE_DIRECTORY=$(CURDIR)/.hypothesis \
  $(PYTHON) -m pytest -p no:cacheprovider

.PHONY: help demo test coverage pythons ready test-systemd unit fuzz lint bench faults docs clean system
.DEFAULT_GOAL := help

help:
	@echo "make demo    see the program at work in a small office made of namespaces"
	@echo "make test    all checks and all tests"
	@echo "make coverage  the same, and which lines they reach"
	@echo "make test-systemd  the services alone, in a Debian that systemd runs"
	@echo "make unit    the tests that need no root, in seconds"
	@echo "make fuzz    damaged frames for a minute, or for SECONDS=N"
	@echo "make pythons  the same under every Python from 3.10 on that is here"
	@echo "make lint    ruff and mypy"
	@echo "make bench   how fast it is, against its peers"
	@echo "make faults  outages at full length, and what they cost"
	@echo "make docs    write docs/reference.md from the code"
	@echo "make clean   remove what the above made here"

system:
	@tests/bootstrap.sh system

$(STAMP): pyproject.toml tests/bootstrap.sh
	@tests/bootstrap.sh venv

demo: system $(STAMP)
	@$(if $(ROOT),echo "* network namespaces need root: sudo may ask for your password" >&2)
	@$(ROOT) $(PYTHON) -m examples.demo

lint: $(STAMP)
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

unit: $(STAMP)
	$(PYTHON) -m pytest tests/unit

# What tests/unit tries for a moment; what broke a promise is printed, with its seed.
fuzz: $(STAMP)
	$(PYTHON) -m tests.fuzz.frames $(SECONDS)

# Twice, and both to their ends: the tests of how many seconds an outage takes are alone.
test: ready lint
	@$(ROOT) $(ALL_TESTS) $(PYTEST) -m "not timed"; shared=$$?; \
	$(ROOT) $(ALL_TESTS) $(PYTEST) $(ALONE) -m timed; timed=$$?; \
	for status in $$shared $$timed; do \
	  [ $$status -eq 0 ] || [ $$status -eq $(NONE) -a -n "$(PYTEST)" ] || exit $$status; \
	done

# Every process that a test starts is watched, which takes as long again as the tests.
coverage: ready
	@mkdir -p $(COVERAGE) && chmod 1777 $(COVERAGE) && rm -rf $(COVERAGE)/*
	$(ROOT) env COVERAGE_FILE=$(CURDIR)/$(COVERAGE)/data $(ALL_TESTS) --cov --cov-report=term $(PYTEST)

# The unit tests under every Python that the program is for and this machine has.
PYTHONS := 3.10 3.11 3.12 3.13
pythons:
	@$(foreach version,$(PYTHONS),tests/bootstrap.sh python $(version) &&) true

# What the tests of the services and of old notebooks run in, which take long to install.
ready: system $(STAMP)
	@$(if $(ROOT),echo "* the laboratory needs root: sudo may ask for your password" >&2)
	@$(PYTHON) -m compileall -q sshvpn
	@$(ROOT) $(PYTHON) -m tests.systemd.tree
	@$(ROOT) $(PYTHON) -m tests.e2e.notebooks
	@$(ROOT) $(PYTHON) -m tests.lab.releases

test-systemd: system $(STAMP)
	@$(ROOT) $(PYTHON) -m tests.systemd.tree
	$(ROOT) $(PYTHON) -m pytest -p no:cacheprovider tests/systemd $(PYTEST)

bench: system $(STAMP)
	@tests/bootstrap.sh peers
	@$(ROOT) $(PYTHON) -m benchmarks $(MEASURES)

# The tests of outages at full length (a cut of five minutes, five hundred reconnects); what they
# measure is printed. About an hour. SSHVPN_TEST_TRANSPORT says for which transport.
FAULTS := $(addprefix tests/e2e/test_,up_outages.py up_ways.py up_far.py up_crash.py \
  up_transfers.py up_endurance.py forward_outages.py)
faults: system $(STAMP)
	@$(ROOT) env SSHVPN_TEST_FAULTS=long SSHVPN_TEST_TRANSPORT=$(or $(SSHVPN_TEST_TRANSPORT),w) \
	  PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -p no:cacheprovider -q -n 0 -s $(FAULTS)

docs: $(STAMP)
	$(PYTHON) docs/generate.py

clean:
	rm -rf .venv .venv-3.* $(COVERAGE) .hypothesis .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# make demo      virtual environment, install, and the built-in demo: three modules, three workers, one folder
# make test      everything needed to test, installed and started; then every quick test
# make test-all  the slow tests, too
# make check     lint and types only

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Two at a time, whole files: most tests wait for processes that they started.
PYTEST := $(BIN)/pytest --fail-on-skip -n 2 --dist loadfile

.PHONY: demo install check test test-all system-packages clean

demo: install
	$(BIN)/modtrain launch --nodes 3

install: $(VENV)/.installed

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check system-packages
	$(PYTEST) -m "not slow"

test-all: check system-packages
	$(PYTEST)

# Debian's python3 comes without venv; what the storage tests inject faults with comes from its packages, too, and so does
# the Slurm that the cluster tests start (cluster/local-slurm), with Torque's commands on top of it, and the browser that
# looks at the dashboard.
system-packages:
	@missing=""; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v bindfs >/dev/null || missing="$$missing bindfs"; \
	command -v fusermount3 >/dev/null || missing="$$missing fuse3"; \
	command -v slurmctld >/dev/null || missing="$$missing slurm-wlm"; \
	command -v qsub >/dev/null || missing="$$missing slurm-wlm-torque"; \
	command -v munged >/dev/null || missing="$$missing munge"; \
	command -v shellcheck >/dev/null || missing="$$missing shellcheck"; \
	command -v chromium >/dev/null || missing="$$missing chromium fonts-dejavu"; \
	[ -z "$$missing" ] || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $$missing; }

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("modtrain needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

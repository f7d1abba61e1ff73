# make demo      virtual environment, install, and the built-in demo: three modules, three workers, one folder
# make test      everything needed to test, installed and started; then every quick test
# make test-all  the slow tests, too
# make check     lint and types only
# make test-runtime  what users install, without what tests need: every module can be imported, the command starts

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/runtime
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# uv installs in seconds what takes pip minutes. One on PATH is used only if it works: it may be a launcher of nothing.
UV := $(or $(UV),$(shell uv --version >/dev/null 2>&1 && command -v uv || echo $(BIN)/uv))
INSTALL = $(UV) pip install --python $(BIN)/python
# More at a time than there are cores, since most tests wait; in the groups and the order of tests/support/order.py.
PYTEST := $(BIN)/pytest --fail-on-skip -n 4 --dist loadfile --no-loadscope-reorder

# The tests start hundreds of Pythons: each would compile PyTorch and the tests again.
unexport PYTHONDONTWRITEBYTECODE
# Debian's packages are installed and the tests compiled while mypy runs.
MAKEFLAGS += --jobs=3

.PHONY: demo install check compiled-tests test test-all test-runtime system-packages slow-packages clean

demo: install
	$(BIN)/modtrain launch --nodes 3

install: $(VENV)/.installed

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Each process of pytest-xdist would do it by itself.
compiled-tests: $(VENV)/.installed-test
	$(BIN)/pytest --collect-only -qq >/dev/null

test: check compiled-tests system-packages
	$(PYTEST) -m "not slow"

test-all: check compiled-tests system-packages slow-packages
	$(PYTEST)

# A module that needs a package which only the tests install would fail at its first user.
test-runtime: | $(BIN)/python $(UV)
	$(PYTHON) -m venv --without-pip --clear $(RUNTIME)
	$(UV) pip install --python $(RUNTIME)/bin/python --editable .
	$(RUNTIME)/bin/python -P tests/support/import_all.py
	$(RUNTIME)/bin/modtrain --help >/dev/null
	$(RUNTIME)/bin/modtrain recipes

# From Debian: what the storage tests inject faults with, the Slurm that the cluster tests start (cluster/local-slurm) with
# Torque's commands on top of it, and the browser that opens the dashboard.
system-packages:
	@missing=""; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v bindfs >/dev/null || missing="$$missing bindfs"; \
	command -v fusermount3 >/dev/null || missing="$$missing fuse3"; \
	command -v slurmctld >/dev/null || missing="$$missing slurm-wlm"; \
	command -v qsub >/dev/null || missing="$$missing slurm-wlm-torque"; \
	command -v munged >/dev/null || missing="$$missing munge"; \
	command -v shellcheck >/dev/null || missing="$$missing shellcheck"; \
	command -v chromium-headless-shell >/dev/null || missing="$$missing chromium-headless-shell fonts-dejavu"; \
	[ -z "$$missing" ] || { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $$missing; }

# The data set of a slow test, 31 MB. After the others, since apt locks.
slow-packages: system-packages
	@[ -d /usr/share/datasets/fashion-mnist ] || \
		{ $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq dataset-fashion-mnist; }

# Debian's python3 comes without venv.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("modtrain needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else 0'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3-venv; }
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml | $(BIN)/python $(UV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python $(UV)
	$(INSTALL) --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

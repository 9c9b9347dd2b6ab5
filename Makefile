# Everything from a bare clone: python ≥ 3.11 with venv, and make. The first call makes .venv; later calls start at once.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
BIN := .venv/bin
PLUGINS := $(patsubst %/pyproject.toml,%,$(sort $(wildcard plugins/*/pyproject.toml)))
PROJECTS := core cli $(PLUGINS)
empty :=
MYPYPATH := core:cli:$(subst $(empty) $(empty),:,$(PLUGINS))
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt
READY := .venv/.ready
# Three workers share two cores, since some tests wait; a maths library that starts its own threads would slow them all.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile
# In CI slow tests take turns, by plugin, by file and by parameters; `make test-all` runs them all.
ROTATED := -p paper_toolbox.testing.rotation --rotate 6
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# `make` alone only installs.
all: $(READY)

.PHONY: all demo test test-all recheck lint proof docs plugin bench clean projects

demo: $(READY)  ## train, compress, export, run and explain a real model: one table, and the folder demo/
	$(BIN)/python examples/demo.py

test: lint  ## what CI runs: with CI set, slow tests in turns, too
	$(PYTEST) $(if $(CI),-m "slow or not slow" $(ROTATED))
	$(if $(CI),$(MAKE) --no-print-directory recheck)

test-all: lint  ## every test there is
	$(PYTEST) -m "slow or not slow"

recheck: $(READY)  ## does what was measured still hold? the whole proof of a small plugin, another one in every state
	OMP_NUM_THREADS=1 $(BIN)/python -m paper_toolbox.prove_all --sample 1 --most 14

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(MYPYPATH) $(BIN)/mypy core cli $(wildcard $(PLUGINS:%=%/paper_toolbox_*) $(foreach part,oracle peers claim,$(PLUGINS:%=%/$(part)_*.py)))
	$(BIN)/toolbox registry check

plugin: $(READY)  ## make plugin NAME=adamp: everything that one plugin must pass
	@test -f plugins/$(NAME)/pyproject.toml || { echo "plugins/$(NAME) is no plugin folder: make plugin NAME=…"; exit 2; }
	$(PIP) --no-deps --no-build-isolation -e plugins/$(NAME)
	$(BIN)/python -m paper_toolbox.testing.card plugins/$(NAME)
	$(BIN)/ruff check plugins/$(NAME)
	$(BIN)/ruff format --check plugins/$(NAME)
	MYPYPATH=$(MYPYPATH) $(BIN)/mypy $(wildcard plugins/$(NAME)/paper_toolbox_* plugins/$(NAME)/[!t]*_*.py)
	$(BIN)/toolbox check plugins/$(NAME) --mutants --write
	$(BIN)/python -m pytest -m "slow or not slow" plugins/$(NAME)

bench: $(READY)  ## beside the peers, in one run each
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

proof: $(READY)  ## prove the plugins that changed: checks, oracles, mutants, peers, the whole way; ALL=1 for every one, CLAIMS=1 for claims and speeds
	OMP_NUM_THREADS=1 $(BIN)/python -m paper_toolbox.prove_all $(if $(ALL),--all) $(if $(CLAIMS),--claims)

docs: $(READY)  ## all that is generated: registry.yaml, the README's list, the cards' fields and proofs, docs/
	$(BIN)/toolbox parity --out docs
	$(BIN)/toolbox why --out docs
	$(BIN)/toolbox registry write
	$(PIP) --no-deps --no-build-isolation $(PLUGINS:%=-e %)  # `toolbox list` and `info` read the installed cards

clean:
	rm -rf .venv demo runs dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): constraints.txt pyproject.toml $(PROJECTS:%=%/pyproject.toml) .venv/projects
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation $(PROJECTS:%=-e %)
	$(PIP) --group dev --group peers
	touch $@

# Changes when a plugin folder comes or goes.
.venv/projects: projects
	@test -x $(BIN)/python || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' && $(PYTHON) -m venv .venv; } \
		|| { echo "python ≥ 3.11 with venv is needed: make PYTHON=python3.12"; exit 1; }
	@echo "$(PROJECTS)" | cmp --silent - $@ || echo "$(PROJECTS)" > $@

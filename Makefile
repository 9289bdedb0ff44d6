# Needs Python 3.11 to 3.13 and git; everything else is installed into .venv.
#
#   make train      train the default preset on Fashion-MNIST, score, draw and export it
#   make test       run the test suite
#   make lint       ruff and mypy
#   make docs       write the documentation site to site/
#   make notebooks  execute the notebooks and store their outputs
#   make data       put Fashion-MNIST where the package looks for it
#
# ARGS adds options, as in: make train ARGS="--preset classic-mlp --seed 1"

PYTHON ?= python3
BIN := .venv/bin
SOURCES := setup.cfg pyproject.toml siamese_keras/_version.py

.PHONY: train test lint docs notebooks data hooks clean
.DELETE_ON_ERROR:
.NOTPARALLEL:

train: .venv/installed-diagrams data
	$(BIN)/python -m siamese_keras.train --export-dir saved_models $(ARGS)
	$(BIN)/python -m siamese_keras.diagrams

test: .venv/installed-test data
	$(BIN)/python -m pytest --numprocesses 2 --dist loadscope --no-loadscope-reorder $(ARGS)

lint: .venv/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

notebooks: .venv/installed-test data
	$(BIN)/python tools/run_notebooks.py $(ARGS)

hooks: .venv/installed-dev
	$(BIN)/pre-commit install

data: .venv/installed-diagrams
	@sh tools/fetch-data.sh $(BIN)/python

# One mark for each extra; installing a larger one keeps what the smaller ones brought.
.venv/installed-%: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean:
	rm -rf .venv build site *.egg-info

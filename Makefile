# Two commands do all the set-up: `make demo` and `make test`. Everything else is a short name for a command.
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test check bench docs pages pictures clean

setup: $(BIN)/.installed          ## make .venv with the tested versions

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup                       ## the whole main job on simulated data, about six minutes on two cores
	sh pipelines/demo.sh demo

test: setup                       ## every test
	$(BIN)/python -m pytest -n 2

check: setup docs                 ## style, types, and the docs: strict, no broken link
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup                       ## the site, in site/; open site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

pictures: setup demo              ## the pictures of the docs, from the demo's folder; wants Chromium
	sh docs/pictures.sh demo

bench: setup                      ## measure; prints figures, asserts nothing
	$(BIN)/python -m tests.benchmarks.step --json
	$(BIN)/python -m tests.benchmarks.ingest --json

pages: setup                      ## write the generated pages: results from docs/results/*.json, reference from the code
	$(BIN)/python -m docs.generate

clean:
	rm -rf .venv demo build dist site

# Every target sets up what it needs in .venv. PYTHON=/path/to/python chooses the interpreter.

BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help demo test check bench build test-all clean

help:
	@echo "make demo      watch a token being kept fresh through faults, for about a minute"
	@echo "make test      run the tests"
	@echo "make check     lint, types, layers"
	@echo "make bench     measure, beside other libraries"
	@echo "make build     build the wheel and the source distribution into dist/"
	@echo "make test-all  run the tests under every CPython >= 3.11 that is found"
	@echo "make clean     remove what was built, but for .venv"

demo: .venv/.stamp-cli
	@$(BIN)/token-keeper demo

# Many tests wait for processes: three at a time take half as long. In their order: else the long files of few tests come last.
test: .venv/.stamp-dev
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

check: .venv/.stamp-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layering.py

bench: .venv/.stamp-bench
	$(BIN)/python bench

build: .venv/.stamp-dev
	rm -rf dist
	$(BIN)/python -m build

test-all: .venv/.stamp-dev
	@.ci/test-all

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +

# One stamp for each set of packages, so that the demo does not wait for the tools of developers.
.venv/.stamp-cli: EXTRAS := cli
.venv/.stamp-dev: EXTRAS := dev
.venv/.stamp-bench: EXTRAS := dev,bench

.venv/.stamp-%: pyproject.toml | .venv/bin/python
	@echo "installing token-keeper[$(EXTRAS)] into .venv ..."
	@$(BIN)/python -m pip install --quiet --editable '.[$(EXTRAS)]'
	@touch $@

.venv/bin/python:
	@.ci/make-venv .venv $(PYTHON)

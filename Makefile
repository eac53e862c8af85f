# make demo: the whole path on generated data.   make test: everything that CI checks.
# Both make the environment in .venv first, if it is not there.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO ?=

.PHONY: demo test env lint types contract tests clean

demo: env
	$(BIN)/bmla demo $(DEMO)

test: lint types contract tests

env: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "make: the pinned environment needs Python 3.11, found: $$($(PYTHON) --version); give it as PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable '.[demo,test,dev]'
	@touch $@

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# through a link named bmla: the package's name is that of no folder, and a checkout may have any name
types: env
	@mkdir -p build/types && ln -sfn ../.. build/types/bmla
	cd build/types && ../../$(BIN)/mypy --config-file bmla/pyproject.toml $(addprefix bmla/,extract fuse apply store commands cli.py)

contract: env
	$(BIN)/lint-imports

tests: env
	$(BIN)/pytest -n auto --dist loadfile

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

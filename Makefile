# Targets of this project; `make help` lists them. Each one sets .venv up first, which does nothing where it is up to date.
.DEFAULT_GOAL := help
BIN := .venv/bin
# Compiled tests are kept: without them each worker and each child process compiles again.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: help setup demo test fast check docs release clean

help:
	@echo "make setup   make .venv with everything, at the tested versions (other targets do it, too)"
	@echo "make demo    teacher -> shards -> student -> score, then one table (at most 10 minutes on 2 cores)"
	@echo "make test    run every test"
	@echo "make fast    run the tests that are not marked slow (about 4 CPU minutes)"
	@echo "make check   run the linters, the file checks and the type checks"
	@echo "make docs    write the documentation as a site, site/index.html"
	@echo "make release VERSION=X.Y.Z    build and check wheel and sdist, write the version and its changelog section"
	@echo "make clean   remove the output of the demo and of the site"

setup:
	@scripts/setup.sh

demo: setup
	@scripts/demo.sh

test: setup
	@$(PYTEST)

fast: setup
	@$(PYTEST) -q -m "not slow"

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@git ls-files -z | xargs -0 $(BIN)/python scripts/check_files.py
	@$(BIN)/mypy

docs: setup
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

# twine is no part of set-up: only releases need it.
release: setup
	@$(BIN)/python -c 'import twine' 2>/dev/null || $(BIN)/python -m pip -q --disable-pip-version-check install \
		--constraint constraints.txt twine
	@$(BIN)/python scripts/release.py $(VERSION)

clean:
	rm -rf demo site dist

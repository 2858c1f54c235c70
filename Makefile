# make demo: the main job on this machine, and one table.  make test: every test.  make check: what CI runs before them.
.DEFAULT_GOAL := help
BIN := .venv/bin

.PHONY: help setup demo test check clean

help:
	@echo "make demo    set up, then teacher -> shards -> student -> score, and one table (10 minutes on 2 cores)"
	@echo "make test    set up, then every test"
	@echo "make check   set up, then linters and type checks"
	@echo "make clean   remove what the demo made"

setup:
	@scripts/setup.sh

demo: setup
	@scripts/demo.sh

test: setup
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf demo

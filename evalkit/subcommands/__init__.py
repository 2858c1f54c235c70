"""Commands of `evalkit` with a module of their own; `evalkit/cli.py` adds them to the group."""

"""Entry point of `logit-shards` and `python -m shards`."""

from __future__ import annotations

from shards.runtime.interrupts import run_program


def main() -> None:
    """Run the command. Ctrl-C ends it with exit code 130 at any time, imports included."""
    run_program("shards.cli")


if __name__ == "__main__":
    main()

"""Entry point of the command `evalkit` and of `python -m evalkit`."""

from __future__ import annotations

from shards.runtime.interrupts import run_program


def main() -> None:
    """Run the command. From its first moment on, Ctrl-C ends it with exit code 130."""
    run_program("evalkit.cli")


if __name__ == "__main__":
    main()

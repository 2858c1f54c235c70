"""The program `logit-shards`, also run by `python -m shards`."""

from __future__ import annotations

from shards.runtime.interrupts import run_program


def main() -> None:
    """Run the command. Ctrl-C ends it with exit code 130 from the first moment on."""
    run_program("shards.cli")


if __name__ == "__main__":
    main()

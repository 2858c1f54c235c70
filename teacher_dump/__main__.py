"""Entry point of `teacher-dump` and of `python -m teacher_dump`."""

from __future__ import annotations

from shards.runtime.interrupts import run_program


def main() -> None:
    """Run the command. Ctrl-C ends it with exit code 130 at any time, imports included."""
    run_program("teacher_dump.cli")


if __name__ == "__main__":
    main()

"""The program `student-train`, also run by `python -m student_train`."""

from __future__ import annotations

from shards.runtime.interrupts import run_program


def main() -> None:
    """Run the command. Ctrl-C ends it with exit code 130 at any moment."""
    run_program("student_train.cli")


if __name__ == "__main__":
    main()

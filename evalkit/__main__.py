"""What does `python -m evalkit` do? The same as the `evalkit` command."""

from __future__ import annotations

from evalkit.cli import main

if __name__ == "__main__":
    main(prog_name="evalkit")

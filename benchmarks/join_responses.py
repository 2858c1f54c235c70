"""Join files of responses: `python -m benchmarks.join_responses FILE... OUT`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """Write the lines of all files but the last to the last."""
    *sources, out = map(Path, sys.argv[1:])
    partial = out.with_name(f"{out.name}.partial")
    with partial.open("wb") as joined:
        for source in sources:
            joined.write(source.read_bytes())
    partial.rename(out)


if __name__ == "__main__":
    main()

"""Check text files for trailing whitespace, a missing final newline and merge markers, and all files for their size.

python scripts/check_files.py FILE ...
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

MAX_BYTES = 300_000
TEXT_SUFFIXES = {".cfg", ".j2", ".json", ".md", ".py", ".sh", ".toml", ".txt", ".yaml", ".yml"}
# Files that a test compares byte for byte.
EXACT = ("tests/shards/golden/", "docs/examples/")


def faults(path: Path) -> list[str]:
    """Return one line per fault of a file."""
    data = path.read_bytes()
    found = [f"{path}: {len(data)} bytes, over the limit of {MAX_BYTES}"] if len(data) > MAX_BYTES else []
    if path.suffix not in TEXT_SUFFIXES or path.as_posix().startswith(EXACT) or not data:
        return found
    lines = data.decode().split("\n")
    found += [f"{path}:{n}: trailing whitespace" for n, line in enumerate(lines, 1) if line != line.rstrip()]
    found += [
        f"{path}:{n}: merge marker" for n, line in enumerate(lines, 1) if re.match(r"(<{7}|>{7}|={7})( |$)", line)
    ]
    if lines[-1] or lines[-2:] == ["", ""]:
        found.append(f"{path}: the file does not end with exactly one newline")
    return found


def main(names: list[str]) -> int:
    """Print the faults of the named files; return 1 if there are any."""
    found = [fault for name in names if Path(name).is_file() for fault in faults(Path(name))]
    print("\n".join(found), end="\n" if found else "")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

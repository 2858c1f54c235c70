"""Copy the first answers of one refined run to another one, which then finds them as if it had been interrupted.

python -m benchmarks.tools.first_answers --source conversation.attempt0.jsonl --out failure.attempt0.jsonl
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import _common
from evalkit.outputs.files import write_text


def main() -> None:
    """Copy the file, whole or not at all."""
    parser = _common.parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="first answers of evalkit score --refine")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    write_text(options.out, options.source.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

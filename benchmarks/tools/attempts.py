"""Write each attempt of refined samples as a sample of its own, so that `evalkit score --samples` scores it.

python -m benchmarks.tools.attempts --samples refined.samples.jsonl --out attempts.samples.jsonl
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import _common
from evalkit.outputs.files import write_text


def main() -> None:
    """Write the attempts in the order of samples and rounds."""
    parser = _common.parser(__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="sample file of evalkit score --refine")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = []
    for line in options.samples.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        for attempt in sample["attempts"]:
            program = {key: attempt[key] for key in ("completion", "solution") if key in attempt}
            lines.append(json.dumps({"task_id": sample["task_id"], **program}) + "\n")
    write_text(options.out, "".join(lines))


if __name__ == "__main__":
    main()

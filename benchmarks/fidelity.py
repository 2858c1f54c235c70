"""The example of docs/fidelity.md: a cache, a check against its teacher, and a figure.

    python -m benchmarks.fidelity --tokens 6000 --rows 4 --engine transformers
    python -m benchmarks.fidelity --shards shards/ --rows 32

The second form uses an existing cache of SmolLM2. The commands and their output replace the section of the page between
its two markers.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import _common
from shards.runtime.machine import describe

BEGIN, END = "<!-- example -->", "<!-- /example -->"
MODEL = "smollm2-135m"


def run(script: str, *arguments: str, shown: tuple[str, str]) -> str:
    """Run a command of this project; return the command and its output with a local path replaced."""
    command = [str(Path(sys.executable).with_name(script)), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [f"$ {script} {' '.join(arguments)}", *done.stdout.rstrip().splitlines()]
    return "\n".join(f"    {line}".rstrip() for line in lines).replace(*shown)


def main() -> None:
    """Make the example and write it into the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--shards", type=Path, help="finished cache to use instead of a new one")
    parser.add_argument("--tokens", type=int, default=6000)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--seed", default="0", help="seed of the choice of rows")
    parser.add_argument("--page", type=Path, default=_common.ROOT / "docs" / "fidelity.md")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        cache = options.shards or Path(folder) / "shards"
        shown = (str(cache), "shards")
        if options.shards is None:
            run("teacher-dump", "--model", MODEL, "--data", "stdlib", "--engine", options.engine, "--max-tokens",
                str(options.tokens), "--window-tokens", "512", "--out", str(cache), shown=shown)  # fmt: skip
        begin = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        check = run("teacher-dump", "--model", MODEL, "--out", str(cache), "--check", str(options.rows), "--engine",
                    options.engine, "--seed", options.seed, shown=shown)  # fmt: skip
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - begin
        picture = options.page.parent / "pictures" / "fidelity.svg"
        report = run("logit-shards", "inspect", str(cache), "--picture", str(picture), shown=shown)
        report = report.replace(str(picture), "fidelity.svg")
    arguments = " ".join(sys.argv[1:]).replace(str(options.shards), "shards/")
    text = (
        f"`python -m benchmarks.fidelity {arguments}`, {_common.today()}; the check took "
        f"{seconds:.0f} s of CPU time on {describe()}.\n\n{report}\n\n{check}\n\n"
        "![captured mass, error and bytes](pictures/fidelity.svg)"
    )
    _common.replace_section(options.page, text, begin=BEGIN, end=END)


if __name__ == "__main__":
    main()

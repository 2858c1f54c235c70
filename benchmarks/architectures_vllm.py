"""Measure the vLLM column of docs/architectures.md.

    export OMP_NUM_THREADS=1
    python -m benchmarks.architectures_vllm --cache FOLDER               # all rows that FOLDER lacks
    python -m benchmarks.architectures_vllm --cache FOLDER llama gemma2  # some of them
    python -m benchmarks.architectures_vllm --cache FOLDER --write       # and write the column to the page

The records of the vLLM engine in float32 are compared with the logits of the transformers model in float64. The models
are those of the survey, with attention heads of 32 dimensions, the least that vLLM's CPU attention supports. Each row
runs in a fork of this process, which has imported vLLM, and is killed after `LIMIT_S` seconds. Its cell is kept in a
file in FOLDER, so that an interrupted measurement resumes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from benchmarks.tiny_models import MODELS, build

LIMIT_S = 240.0
TOLERANCE = 1e-4
"""Largest difference of a recorded probability that counts as float32 rounding."""
APPROXIMATE_TOLERANCE = 1e-2
"""Largest difference that is accepted of an architecture of which vLLM approximates a part."""
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "head_dim": 32,
    "n_embd": 128,
    "intermediate_size": 96,
    "initializer_range": 0.15,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}
"""Sizes in place of those of `tiny_models`, where its models do not need their own."""
OWN_SIZES: dict[str, dict[str, Any]] = {
    "llama:longrope": {
        "rope_parameters": {
            **MODELS["llama:longrope"]["rope_parameters"],
            "short_factor": [1.0] * 16,
            "long_factor": [4.0] * 16,
        }
    }
}
"""Settings that depend on the width of the heads."""
RIGHT = "right"
LESS_EXACT = "**less exact**"
WRONG = "**wrong**"
ABSENT = "not in vLLM"
NOT_RUN = "not run"
REFUSED = "**refused**"
NO_START = "**does not start**"
_NO_START_TEXT = "the engine did not start ("


def measure(name: str) -> str:
    """Return the cell of one of `MODELS`."""
    from vllm import ModelRegistry

    from benchmarks.architectures import largest_error
    from teacher_dump.engines.base import Engine, EngineConfig
    from teacher_dump.engines.vllm import VllmEngine
    from teacher_dump.errors import DumpError
    from teacher_dump.model.causal_lm import load

    def start(config: EngineConfig) -> Engine:
        return VllmEngine(config, skip_tokenizer_init=True)

    tiny = build(name, **{**SIZES, **OWN_SIZES.get(name, {})})
    if type(tiny).__name__ not in ModelRegistry.get_supported_archs():
        return ABSENT
    with tempfile.TemporaryDirectory() as folder:
        tiny.save_pretrained(folder)
        try:
            model = load(Path(folder), dtype="float64")
            error = largest_error(start, model, Path(folder), "float32")
        except DumpError as refused:
            return refusal(str(refused).replace(f"{folder}: ", ""))
    if error <= TOLERANCE:
        return RIGHT
    return f"{LESS_EXACT if error <= APPROXIMATE_TOLERANCE else WRONG}: probabilities differ by {error:.0e}"


def refusal(message: str) -> str:
    """Return the cell of a refused model."""
    if message.startswith("vLLM has no "):
        return ABSENT
    if _NO_START_TEXT in message:
        cause = message.split(_NO_START_TEXT, 1)[1].split("); its whole output")[0]
        return f"{NO_START}: {_short(cause)}"
    return f"{REFUSED}: {_short(message.split('; expected')[0])}"


def _short(text: str) -> str:
    return textwrap.shorten(text.replace("|", "/"), 130, placeholder=" ...")


def measure_into(name: str, cell: Path) -> None:
    """Measure one row in this process, and write its cell. Output goes to a log beside the cell."""
    log = os.open(cell.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        text = measure(name)
    except Exception as error:  # a row must not end the others
        text = f"{NO_START}: {_short(f'{type(error).__name__}: {error}')}"
    temporary = cell.with_suffix(".part")
    temporary.write_text(json.dumps(text))
    temporary.replace(cell)
    os._exit(0)


def measure_apart(name: str, folder: Path) -> str:
    """Return the cell of one row, from the folder or measured in a fork of this process."""
    cell = folder / f"{name.replace(':', '+')}.json"
    if not cell.exists():
        process = multiprocessing.get_context("fork").Process(target=measure_into, args=(name, cell))
        process.start()
        process.join(LIMIT_S)
        if process.is_alive():
            process.kill()
            process.join()
        if not cell.exists():
            ended = f"ended with code {process.exitcode}" if process.exitcode != -9 else f"no result in {LIMIT_S:.0f} s"
            return f"{NO_START}: {ended}"
    return str(json.loads(cell.read_text()))


def main() -> None:
    """Measure rows, print them, and write the column if it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(MODELS), metavar="NAME")
    parser.add_argument("--cache", type=Path, required=True, help="folder of finished cells")
    parser.add_argument("--write", action="store_true", help="write the column to docs/architectures.md")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("export OMP_NUM_THREADS=1: vLLM needs the same number of threads in each thread of this process")
    options.cache.mkdir(parents=True, exist_ok=True)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine runs in the fork itself
    import vllm  # noqa: F401  # once for all rows

    from benchmarks.architectures import write_vllm_column

    cells = {}
    for name in options.names:
        cells[name] = measure_apart(name, options.cache)
        print(f"{name}: {cells[name]}", flush=True)
    if options.write:
        write_vllm_column(cells)
    if any(cell.startswith(WRONG) for cell in cells.values()):
        sys.exit("some rows are wrong")


if __name__ == "__main__":
    main()

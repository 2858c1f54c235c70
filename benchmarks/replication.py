"""Does evalkit give the numbers that were published? Fills docs/results/replication.md.

    python -m benchmarks.replication                                   # the page, from what was kept
    python -m benchmarks.replication --result NAME score.json [...]    # keep a result under NAME, then the page

NAME is a model's name in `PUBLISHED`, or another name for what has no published number. Of each result, what the
page needs is kept in docs/results/replication.json, so that the page can be made again without the results.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import _common

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "results"
CODE_LLAMA = "arXiv 2308.12950v3, table 2 (transcribed)"
DEEPSEEK = "DeepSeek-Coder's READMEs"
QWEN = "arXiv 2409.12186, EvalPlus tables (transcribed)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published number, and how to get it with evalkit."""

    model: str
    hub: str
    task: str
    protocol: str
    scores: dict[str, float]
    """Percent, by metric."""
    source: str
    data: str = ""
    """Where the published number used other data than evalkit pins."""

    def commands(self) -> list[str]:
        start = f"evalkit score {self.hub} --tasks {self.task}"
        found = [f"{start} --protocol {self.protocol}"] if "pass@1" in self.scores else []
        if "pass@100" in self.scores:
            sampled = "humaneval-openai-pass10-v1" if self.task == "humaneval" else "mbpp-3shot-pass10-v1"
            found.append(f"{start} --protocol {sampled} --n 200")
        return found


def _code_llama(name: str, hub: str, humaneval: str, mbpp: str) -> list[Published]:
    rows = (("humaneval", "humaneval-openai-v1", humaneval), ("mbpp", "mbpp-3shot-v1", mbpp))
    return [
        Published(
            model=name,
            hub=f"codellama/CodeLlama-{hub}-hf",
            task=task,
            protocol=protocol,
            scores=dict(zip(("pass@1", "pass@10", "pass@100"), map(float, values.split("/")), strict=True)),
            source=CODE_LLAMA,
        )
        for task, protocol, values in rows
    ]


def _greedy(model: str, hub: str, task: str, protocol: str, score: float, source: str, data: str = "") -> Published:
    return Published(
        model=model, hub=hub, task=task, protocol=protocol, scores={"pass@1": score}, source=source, data=data
    )


def _deepseek(name: str, hub: str, humaneval: float, mbpp: float) -> list[Published]:
    model = f"deepseek-ai/deepseek-coder-{hub}"
    return [
        _greedy(name, model, "humaneval", "humaneval-deepseek-v1", humaneval, DEEPSEEK),
        _greedy(name, model, "mbpp", "mbpp-3shot-v1", mbpp, DEEPSEEK, "theirs ends the prompt at [BEGIN], no newline"),
    ]


def _qwen(size: str, scores: str) -> list[Published]:
    name, hub = f"Qwen2.5-Coder-{size}", f"Qwen/Qwen2.5-Coder-{size}"
    he, he_plus, mbpp_plus, shots = map(float, scores.split("/"))
    return [
        _greedy(name, hub, "humaneval", "humaneval-evalplus-v1", he, QWEN),
        _greedy(name, hub, "humaneval+", "humaneval-evalplus-v1", he_plus, QWEN, "HumanEval+ v0.1.9; v0.1.10 here"),
        _greedy(name, hub, "mbpp+", "mbpp-evalplus-v1", mbpp_plus, QWEN, "MBPP+ v0.1.0, 399 tasks; v0.2.0, 378 here"),
        _greedy(name, hub, "mbpp", "mbpp-3shot-v1", shots, QWEN),
    ]


PUBLISHED: list[Published] = [
    *_code_llama("Code Llama 7B", "7b", "33.5/59.6/85.9", "41.4/66.7/82.5"),
    *_code_llama("Code Llama 13B", "13b", "36.0/69.4/89.8", "47.0/71.7/87.1"),
    *_code_llama("Code Llama 34B", "34b", "48.8/76.8/93.0", "55.0/76.2/86.6"),
    *_code_llama("Code Llama 70B", "70b", "53.0/84.6/96.2", "62.4/81.1/91.9"),
    *_code_llama("Code Llama Python 7B", "7b-Python", "38.4/70.3/90.6", "47.6/70.3/84.8"),
    *_code_llama("Code Llama Python 13B", "13b-Python", "43.3/77.4/94.1", "49.0/74.0/87.6"),
    *_code_llama("Code Llama Python 34B", "34b-Python", "53.7/82.8/94.7", "56.2/76.4/88.2"),
    *_code_llama("Code Llama Python 70B", "70b-Python", "57.3/89.3/98.4", "65.6/81.5/91.9"),
    *_deepseek("DeepSeek-Coder 1.3B", "1.3b-base", 34.8, 46.8),
    *_deepseek("DeepSeek-Coder 6.7B", "6.7b-base", 49.4, 60.6),
    *_deepseek("DeepSeek-Coder 33B", "33b-base", 56.1, 66.0),
    *_qwen("0.5B", "28.0/23.8/47.1/40.4"),
    *_qwen("1.5B", "43.9/36.6/58.6/59.2"),
    *_qwen("3B", "52.4/42.7/61.4/65.2"),
    *_qwen("7B", "61.6/53.0/62.9/68.8"),
    _greedy(
        "TinyLlama 1.1B (2.5T tokens)",
        "TinyLlama/TinyLlama-1.1B-intermediate-step-1195k-token-2.5T",
        "humaneval",
        "humaneval-openai-v1",
        9.15,
        "TinyLlama's EVAL.md",
        "theirs by instruct-eval's harness",
    ),
]


def keep(name: str, path: Path, kept: list[dict[str, Any]]) -> None:
    """Take what the page needs out of a result; an earlier one of the same name, task and protocol is replaced."""
    result = json.loads(path.read_text(encoding="utf-8"))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    for task, score in result["scores"].items():
        protocol = (result["protocol"].get(task) or {}).get("name", "published samples")
        kept[:] = [one for one in kept if (one["name"], one["task"], one["protocol"]) != (name, task, protocol)]
        kept.append(
            {
                "name": name,
                "task": task,
                "protocol": protocol,
                "scores": {metric: score["interval"][metric] for metric in score["interval"]},
                "problems": score["problems"],
                "samples": score["samples"],
                "solved": score["solved"],
                "limit": result["limit"],
                "generation": result["generation"],
                "command": " ".join([Path(result["command"][0]).name, *map(_plain, result["command"][1:])]),
                "layers_off": [name for name, layer in result["sandbox"]["layers"].items() if not layer["on"]],
                "commit": commit,
                "date": str(date.today()),
            }
        )


def _plain(argument: str) -> str:
    """Leave folders of this machine out of a command."""
    return Path(argument).name if argument.startswith("/") else argument


def _percent(estimate: dict[str, float]) -> str:
    return f"{100 * estimate['mean']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def page(kept: list[dict[str, Any]]) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Published numbers, and how to get them",
        "",
        "Made by `python -m benchmarks.replication`. Each row: the command that asks as the source did, what the",
        "source printed, and what came out here. *Not run here* says that the weights were not at hand: nothing is",
        "claimed for such a row but its command. Values marked as transcribed come from a copy of the paper's table.",
        "Square brackets are 95% intervals over problems; a benchmark of 164 problems resolves about 7 points.",
        "",
        "| model | benchmark | command | published | source | here |",
        "|---|---|---|---|---|---|",
    ]
    for row in PUBLISHED:
        found = [one for one in kept if (one["name"], one["task"]) == (row.model, row.task)]
        here = "<br>".join(
            ", ".join(f"{metric} {_percent(one['scores'][metric])}" for metric in row.scores if metric in one["scores"])
            + (f" ({one['protocol']})" if one["protocol"] != row.protocol else "")
            for one in found
        )
        published = ", ".join(f"{metric} {value:g}" for metric, value in row.scores.items())
        commands = "<br>".join(f"`{command}`" for command in row.commands())
        note = f"; {row.data}" if row.data else ""
        cells = (row.model, row.task, commands, published, row.source + note, here or "not run here")
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## What was run",
        "",
        "SmolLM2-135M-Instruct is the folder that `teacher-dump --model smollm2-135m` leaves in",
        "`~/.cache/teacherless/models/`. Asked to complete a function, this chat model mostly ends its answer with its",
        "first token or begins another function, and solves none; asked as a chat model it solves five.",
        "",
        "The demo's student is the four-layer one that `make demo` used to train, with layers spread evenly; it is",
        "asked for 128 tokens at most, for MBPP",
        "at n = 20 for 64. After 28 steps it solves nothing.",
        "",
        "Rows in bfloat16 were written by a processor that computes in it, an AMD EPYC with AVX-512, where `--dtype",
        "auto` takes it. One with AVX2 only writes in float32; greedy answers can differ between the two.",
        "",
        "| what | benchmark | protocol | problems, samples | scores | engine | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in kept:
        scores = "<br>".join(f"{metric} {_percent(value)}" for metric, value in one["scores"].items())
        made = one["generation"]
        engine = f"{made['engine']}, {made['dtype']}, seed {made['seed']}" if made else "none"
        engine += f", {made['machine']}" if "machine" in (made or {}) else ""
        limit = f" (only the first {one['limit']})" if one["limit"] else ""
        off = f"; layers off: {', '.join(one['layers_off'])}" if one["layers_off"] else ""
        asked = f"{one['problems']}{limit}, {one['samples']}"
        command = f"`{one['command']}` ({one['date']}, {one['commit']}{off})"
        lines.append(f"| {' | '.join((one['name'], one['task'], one['protocol'], asked, scores, engine, command))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = _common.parser(__doc__)
    parser.add_argument("--result", nargs=2, action="append", default=[], metavar=("NAME", "FILE"))
    options = parser.parse_args()
    store = FOLDER / "replication.json"
    kept = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else []
    for name, path in options.result:
        keep(name, Path(path), kept)
    FOLDER.mkdir(parents=True, exist_ok=True)
    store.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "replication.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()

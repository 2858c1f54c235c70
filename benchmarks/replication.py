"""Published scores beside those of evalkit; writes docs/results/replication.md.

    python -m benchmarks.replication                                   # writes the page from the stored results
    python -m benchmarks.replication --result NAME score.json [...]    # stores a result under NAME first

NAME is a model of `PUBLISHED`, or another name for a model without a published score. docs/results/replication.json
stores the parts of each result that the page needs, so that the page can be written again without the results.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _common

FOLDER = _common.ROOT / "docs" / "results"
CODE_LLAMA = "arXiv 2308.12950v3, table 2 (transcribed)"
DEEPSEEK = "DeepSeek-Coder's READMEs"
QWEN = "arXiv 2409.12186, EvalPlus tables (transcribed)"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published score and the command that reproduces it."""

    model: str
    hub: str
    task: str
    protocol: str
    scores: dict[str, float]
    """Percent, by metric."""
    source: str
    data: str = ""
    """How the data of the published score differs from the data that evalkit pins."""

    def commands(self) -> list[str]:
        """Return the commands that reproduce the score."""
        start = f"evalkit score {self.hub} --tasks {self.task}"
        commands = [f"{start} --protocol {self.protocol}"] if "pass@1" in self.scores else []
        if "pass@100" in self.scores:
            sampled = "humaneval-openai-pass10-v1" if self.task == "humaneval" else "mbpp-3shot-pass10-v1"
            commands.append(f"{start} --protocol {sampled} --n 200")
        return commands


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
    """Store what the page needs of a result; it replaces one of the same name, task and protocol."""
    result = json.loads(path.read_text(encoding="utf-8"))
    for task, score in result["scores"].items():
        protocol = (result["protocol"].get(task) or {}).get("name", "published samples")
        kept[:] = [row for row in kept if (row["name"], row["task"], row["protocol"]) != (name, task, protocol)]
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
                "commit": _common.commit(),
                "date": _common.today(),
            }
        )


def _plain(argument: str) -> str:
    """Return an argument without the folders of this machine."""
    return Path(argument).name if argument.startswith("/") else argument


def _percent(estimate: dict[str, float]) -> str:
    return f"{100 * estimate['mean']:.1f} [{100 * estimate['low']:.1f}, {100 * estimate['high']:.1f}]"


def page(kept: list[dict[str, Any]]) -> str:
    """Return the page as Markdown."""
    lines = [
        "# Published scores and how to reproduce them",
        "",
        "Written by `python -m benchmarks.replication`. Each row has the command with the protocol of the source, the",
        "published score and the score here. *Not run here* means that the weights were not available; such a row",
        "claims nothing but its command. Transcribed values come from a copy of the paper's table. Square brackets are",
        "95% intervals over problems; a benchmark of 164 problems resolves about 7 points.",
        "",
        "| model | benchmark | command | published | source | here |",
        "|---|---|---|---|---|---|",
    ]
    for row in PUBLISHED:
        results = [result for result in kept if (result["name"], result["task"]) == (row.model, row.task)]
        here = "<br>".join(
            ", ".join(f"{name} {_percent(result['scores'][name])}" for name in row.scores if name in result["scores"])
            + (f" ({result['protocol']})" if result["protocol"] != row.protocol else "")
            for result in results
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
        "SmolLM2-135M-Instruct is the folder that `teacher-dump --model smollm2-135m` writes to",
        "`~/.cache/teacherless/models/`. With a completion protocol this chat model mostly ends its answer with the",
        "first token or starts another function, and solves no problem. With a chat protocol it solves five.",
        "",
        "The demo's student is an earlier one with four evenly spaced layers, trained for 28 steps. Its answers have",
        "at most 128 tokens, or 64 for MBPP at n = 20. It solves no problem.",
        "",
        "The bfloat16 rows come from an AMD EPYC with AVX-512, where `--dtype auto` selects bfloat16. A processor with",
        "AVX2 only uses float32; greedy answers can differ between the two types.",
        "",
        "| what | benchmark | protocol | problems, samples | scores | engine | command |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in kept:
        scores = "<br>".join(f"{metric} {_percent(value)}" for metric, value in result["scores"].items())
        made = result["generation"]
        engine = f"{made['engine']}, {made['dtype']}, seed {made['seed']}" if made else "none"
        engine += f", {made['machine']}" if "machine" in (made or {}) else ""
        limit = f" (only the first {result['limit']})" if result["limit"] else ""
        off = f"; layers off: {', '.join(result['layers_off'])}" if result["layers_off"] else ""
        asked = f"{result['problems']}{limit}, {result['samples']}"
        command = f"`{result['command']}` ({result['date']}, {result['commit']}{off})"
        what = (result["name"], result["task"], result["protocol"], asked, scores, engine, command)
        lines.append(f"| {' | '.join(what)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Store results and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--result", nargs=2, action="append", default=[], metavar=("NAME", "FILE"))
    options = parser.parse_args()
    store = FOLDER / "replication.json"
    kept = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else []
    for name, path in options.result:
        keep(name, Path(path), kept)
    _common.write_json(store, kept)
    _common.write_page(FOLDER / "replication.md", page(kept))


if __name__ == "__main__":
    main()

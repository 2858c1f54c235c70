"""Page and figure of `benchmarks.tokenizer_alignment`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _common


def page(results: dict[str, Any], name: str) -> str:
    """Return the page as Markdown; `name` is that of its figure."""
    corpora = ["standard library", "installed packages"]
    lib = results[corpora[0]]

    def line(title: str, key: str, *, percent: bool = True) -> str:
        values = [results[c][key] for c in corpora]
        return f"| {title} | " + " | ".join(_percent(v) if percent else f"{v:,}" for v in values) + " |"

    rows = [
        "# Two tokenizers on Python",
        "",
        f"Teacher `{results['teacher']}` (SentencePiece, dummy prefix, byte fallback), student `{results['student']}`",
        f"(byte-level BPE, added tokens for blanks); {results['date']}, {results['machine']}. Written by",
        "",
        f"    python -m benchmarks.tokenizer_alignment --teacher ../shared/data/tokenizers/{results['teacher']} \\",
        f"        --student ../shared/data/tokenizers/{results['student']} --megabytes {results['megabytes']:g}"
        f" --write docs/results/{name}",
        "",
        f"![Positions that each loss uses, and wrong targets of matching strings]({name}.png)",
        "",
        "| | " + " | ".join(corpora) + " |",
        "|---|---|---|",
        line("files", "files", percent=False),
        line("files that a tokenizer does not reproduce (left out)", "files left out", percent=False),
        line("bytes", "bytes", percent=False),
        line("bytes per teacher token", "bytes per teacher token", percent=False),
        line("bytes per student token", "bytes per student token", percent=False),
        line("shared boundaries per teacher token", "shared boundaries per teacher token"),
        line("word ends (non-blank, then blank) that both share", "word ends that are shared"),
        line("line starts (line feed, then non-blank) that both share", "line starts that are shared"),
        line("student tokens per span", "student tokens per word chunk", percent=False),
        line("shared boundaries whose next teacher token has an equal string", "boundaries with an equal string"),
        line("**... which is not the student's next token**", "equal string is not the student's token"),
        line("... blanks, digits, line breaks left out (`matched`)", "conservative map is not the student's token"),
        line("**student's next token is in the cell of the teacher's**", "student's token is in the cell"),
        line("windows of 1,024 tokens with other tokens when tokenised alone", "windows whose tokens alone differ"),
        line("tokens of windows tokenised alone that equal the document's", "tokens that are the document's own"),
        "",
        "Wrong targets of matching by strings, by kind of the teacher's token, as shares of all shared boundaries:",
        "",
        "| kind | " + " | ".join(corpora) + " |",
        "|---|---|---|",
        *(
            f"| {kind} | " + " | ".join(_percent(results[c]["by kind"].get(kind, 0.0)) for c in corpora) + " |"
            for kind in lib["by kind"]
        ),
        "",
        "Stretches between neighbouring shared boundaries, teacher tokens : student tokens (standard library):",
        "",
        "| stretch | share | of teacher tokens | of bytes |",
        "|---|---|---|---|",
        *(
            f"| {kind} | {_percent(v['share'])} | {_percent(v['teacher tokens'])} | {_percent(v['bytes'])} |"
            for kind, v in lib["stretches"].items()
        ),
        "",
        "Positions and bytes that each loss uses:",
        "",
        "| loss | positions of the student | bytes |",
        "|---|---|---|",
        *(
            f"| `{loss}` | {_percent(v['positions'])} | {'-' if v['bytes'] is None else _percent(v['bytes'])} |"
            for loss, v in lib["seen by"].items()
        ),
        "",
        f"Speed, teacher tokens per second of one core (CPU time; fastest of {results['rounds']} runs of each batch;"
        f" load of the machine {results['load']:g}):",
        "",
        "| | " + " | ".join(corpora) + " |",
        "|---|---|---|",
        *(
            f"| {what} | " + " | ".join(f"{results[c]['teacher tokens per second'][what]:,}" for c in corpora) + " |"
            for what in lib["teacher tokens per second"]
        ),
        "",
        f"Tables of both vocabularies are computed once per run, in {results['seconds_for_tables']} s.",
        "",
    ]
    return "\n".join(rows)


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %" if value < 0.9999 or value == 1 else f"{100 * value:.4f} %"


def picture(results: dict[str, Any], path: Path) -> None:
    """Plot the positions that each loss uses and the errors of matching by strings."""
    corpora = ["standard library", "installed packages"]
    with _common.figure(path, 2, size=(10, 3.4)) as (left, right):
        used = results[corpora[0]]["seen by"]
        left.barh(list(used), [100 * v["positions"] for v in used.values()], color="#4878a8")
        left.set_xlabel("student positions with a target, %")
        left.set_xlim(0, 100)
        left.set_title("positions that each loss uses", fontsize=10)
        kinds = list(results[corpora[0]]["by kind"])
        start = np.zeros(2)
        for kind, colour in zip(kinds, ("#c44e52", "#dd8452", "#ccb974", "#8172b3", "#937860"), strict=False):
            values = np.array([100 * results[c]["by kind"].get(kind, 0.0) for c in corpora])
            right.barh(corpora, values, left=start, label=kind, color=colour)
            start += values
        in_no_cell = 1 - results[corpora[0]]["student's token is in the cell"]
        right.barh(["in no cell"], [100 * in_no_cell], color="#4878a8")
        right.set_xlabel("shared boundaries with a wrong target by equal strings, %")
        right.set_title("the student's token is another one", fontsize=10)
        right.legend(fontsize=8)

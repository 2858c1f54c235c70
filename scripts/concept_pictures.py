"""Draw the pictures of docs/concepts.md: a cache, a record, prefix cells.

    python scripts/concept_pictures.py

The examples are small and made up; head, draws and cells follow from them by the definitions of that page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
THRESHOLD = 0.04
PROBABILITIES = (0.46, 0.2, 0.09, 0.06, 0.035, 0.03, 0.027, 0.022, 0.019, 0.016, 0.013, 0.01, 0.008, 0.006, 0.004)
"""The teacher's distribution at one position, the most probable id first. They sum to 1."""
OFFSET = 0.4
"""Where the first draw lies in its share of the tail: random in a dump."""
HEAD_ROOTS = {"re": 0.3, "return": 0.5, "x": 0.1}
"""Roots of the teacher's head, with their probabilities."""
TAIL_ROOTS = ("y",)
"""Root of a draw."""
STUDENT_IDS = ("r", "re", "ref", "ret", "return", "returned", "x", "xs", "y", "yield")
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2937 } .soft { fill: #6b7280 } .bold { font-weight: 600 }
  .code { font-family: ui-monospace, monospace } .middle { text-anchor: middle }
  rect { fill: #dbeafe; stroke: #2563eb; rx: 3 } rect.plain { fill: none; stroke: #9ca3af }
  rect.draw { fill: #d97706; stroke: none }
  rect.head { fill: #2563eb; stroke: none } rect.tail { fill: #9ca3af; stroke: none }
  line { stroke: #9ca3af } line.limit { stroke: #d97706; stroke-dasharray: 5 4 }
  @media (prefers-color-scheme: dark) { text { fill: #e5e7eb } .soft { fill: #9ca3af }
    rect { fill: #1e3a8a; stroke: #60a5fa } rect.head { fill: #60a5fa } }
"""


def text(x: float, y: float, content: str, kind: str = "") -> str:
    """Return a line of text that begins at a point, or is centred on it with the kind `middle`."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(content)}</text>'


def box(x: float, y: float, width: float, height: float, kind: str = "") -> str:
    """Return a rectangle."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.4g}" height="{height:.4g}" class="{kind}"/>'


def line(x: float, y: float, x2: float, y2: float, kind: str = "") -> str:
    """Return a line."""
    return f'<line x1="{x:.4g}" y1="{y:.4g}" x2="{x2:.4g}" y2="{y2:.4g}" class="{kind}"/>'


def picture(title: str, height: int, parts: Sequence[str]) -> str:
    """Return an SVG file of 720 units width."""
    size = f'viewBox="0 0 720 {height}" width="720" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(title)}">'
    return "\n".join([head, f"<title>{escape(title)}</title><style>{_STYLE}</style>", *parts, "</svg>"]) + "\n"


def split_record(probabilities: Sequence[float], threshold: float, offset: float) -> tuple[int, list[int]]:
    """Return the number of ids in the head, and the ids of the draws by systematic sampling from the others."""
    head = max(1, sum(p >= threshold for p in probabilities))
    tail = probabilities[head:]
    mass = sum(tail)
    count = math.ceil(mass / threshold)
    ends = [sum(tail[: i + 1]) for i in range(len(tail))]
    points = [(k + offset) * mass / count for k in range(count)]
    return head, [head + next(i for i, end in enumerate(ends) if end > point) for point in points]


def cells_of(ids: Sequence[str], head: Sequence[str], tail: Sequence[str]) -> dict[str, list[str]]:
    """Return the student's ids by the longest root of the head, else by that of the tail, else as OTHER."""
    cells: dict[str, list[str]] = {}
    for name in ids:
        roots = [root for root in head if name.startswith(root)] or [root for root in tail if name.startswith(root)]
        cells.setdefault(max(roots, key=len, default="OTHER"), []).append(name)
    return cells


def cache_picture() -> str:
    """Return the picture of documents, windows, rows, chunks and shards."""
    parts = [text(0, 16, "document", "bold"), box(90, 2, 560, 22, "plain"), text(100, 17, "one source file", "soft")]
    parts += [line(x, 2, x, 24, "limit") for x in (290, 490)]
    parts += [text(0, 66, "windows", "bold")]
    parts += [box(x, 52, width, 22) for x, width in ((90, 196), (294, 192), (494, 156))]
    parts += [text(188, 68, "256 tokens", "middle"), text(390, 68, "256", "middle"), text(572, 68, "188", "middle")]
    parts += [line(90, 76, 90, 96), line(286, 76, 650, 96), text(0, 116, "row", "bold")]
    for number, token in enumerate(("def", " area", "(", "r", ")", ":", "...")):
        x = 90 + 80 * number
        parts += [box(x, 100, 76, 24), text(x + 38, 116, token, "code middle")]
        if number:
            parts += [line(x + 38, 126, x + 38, 138), text(x + 38, 152, "record", "soft middle")]
    parts += [text(0, 152, "positions", "bold"), text(0, 204, "shard", "bold")]
    for chunk in range(3):
        x = 90 + 130 * chunk
        parts += [box(x, 182, 124, 46, "plain"), text(x + 62, 250, "chunk, sha256", "soft middle")]
        parts += [box(x + 6 + 38 * row, 188, 36, 34) for row in range(3)]
    parts += [
        text(488, 201, "an Arrow file of whole rows,"),
        text(488, 219, "complete and checked, or absent"),
    ]
    parts += [text(0, 290, "cache", "bold")]
    for number in range(3):
        parts += [
            box(90 + 130 * number, 274, 124, 24),
            text(152 + 130 * number, 290, f"00000{number}.arrow", "code middle"),
        ]
    parts += [box(480, 274, 124, 24, "plain"), text(542, 290, "manifest.json", "code middle")]
    parts += [text(612, 290, "written last", "soft")]
    return picture(
        "A document is cut into windows; a window is a row; rows are in chunks, shards and a cache", 304, parts
    )


def record_picture() -> str:
    """Return the picture of head, tail and draws at one position."""
    head, draws = split_record(PROBABILITIES, THRESHOLD, OFFSET)
    mass = sum(PROBABILITIES[head:])
    base, scale, step = 190, 340.0, 44
    parts = [text(0, 14, "probability of each id, the most probable first", "soft")]
    for number, p in enumerate(PROBABILITIES):
        kind = "head" if number < head else "draw" if number in draws else "tail"
        parts += [box(20 + step * number, base - p * scale, 30, p * scale, kind)]
        if number < head:
            parts += [text(35 + step * number, base - p * scale - 5, f"{p:g}", "middle")]
    parts += [line(10, base, 690, base), line(10, base - THRESHOLD * scale, 690, base - THRESHOLD * scale, "limit")]
    parts += [text(690 - 190, base - THRESHOLD * scale - 6, f"threshold c = {THRESHOLD:g}", "soft")]
    parts += [text(20, base + 22, f"head: {head} ids, exact", "bold")]
    parts += [
        text(
            20 + step * head,
            base + 22,
            f"tail: mass {mass:.2f}, {len(draws)} draws of weight {mass / len(draws):.3g}",
            "bold",
        )
    ]
    y, x, width = base + 66, 20.0, 660.0
    parts += [
        text(
            20,
            y - 12,
            f"the tail alone, side by side; a draw at each of {len(draws)} equal steps, from a random start",
            "soft",
        )
    ]
    for number in range(head, len(PROBABILITIES)):
        part = width * PROBABILITIES[number] / mass
        parts += [box(x, y, part - 2, 22, "draw" if number in draws else "tail")]
        x += part
    for number in range(len(draws)):
        point = 20 + (number + OFFSET) * width / len(draws)
        parts += [line(point, y - 5, point, y + 30), text(point, y + 44, "draw", "middle")]
    return picture("A record keeps likely ids exactly, and draws that stand for the rest", y + 54, parts)


def cells_picture(cells: Mapping[str, Sequence[str]]) -> str:
    """Return the picture of the cells that both vocabularies can express."""
    parts = [text(0, 16, "teacher's roots", "bold"), text(230, 16, "prefix cells: the student's ids", "bold")]
    for number, (root, names) in enumerate(sorted(cells.items(), key=lambda item: item[0] == "OTHER")):
        y = 34 + 40 * number
        share = f"{HEAD_ROOTS[root]:g}" if root in HEAD_ROOTS else "rest" if root == "OTHER" else "a draw"
        parts += [box(0, y, 100, 26, "" if root in HEAD_ROOTS else "plain"), text(50, y + 18, root, "code middle")]
        parts += [text(112, y + 18, share, "soft"), line(170, y + 13, 222, y + 13), box(230, y, 480, 26, "plain")]
        parts += [text(242 + 90 * place, y + 18, name, "code") for place, name in enumerate(names)]
    note = (
        "An id is in the cell of the longest root of the head that it begins with. "
        "Both models give each cell a probability."
    )
    return picture(
        "Prefix cells of two vocabularies", 60 + 40 * len(cells), [*parts, text(0, 52 + 40 * len(cells), note, "soft")]
    )


def pictures() -> dict[str, str]:
    """Return the content of each file by its name."""
    cells = cells_of(STUDENT_IDS, list(HEAD_ROOTS), TAIL_ROOTS)
    return {"cache.svg": cache_picture(), "record.svg": record_picture(), "cells.svg": cells_picture(cells)}


if __name__ == "__main__":
    for name, content in pictures().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
        print(FOLDER / name)

"""Size, error and speed of the format beside the layouts of other systems, on the same records.

    python -m benchmarks.shard_format --tokens 30000

The teacher is SmolLM2-135M over the sources of the standard library. Every layout stores the same positions. Prints a
table and writes it to docs/benchmarks/ with a figure.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks import _common
from benchmarks.layouts import DistillKit, Estimate, Layout, Megatron, Ours, Sampled, TopK
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.engines.records import draw_offsets
from teacher_dump.engines.settings import engine_config, record_layout
from teacher_dump.model.teachers import resolve
from teacher_dump.tasks.task import shuffle_windows
from teacher_dump.tasks.windowing import Window, cut_windows

REDRAWS = 64
COLUMNS = (
    "layout",
    "stored beside the distribution",
    "entries",
    "bytes per token",
    "rms",
    "bias",
    "unbiased",
    "angle",
    "encode, M tokens/s",
    "decode, M tokens/s",
)
Point = tuple[str, float, float, str]
"""Name, bytes per token, rms error and `yes` or `no` for unbiased."""
EXPLAINED = """
Error: the gradient of the cross-entropy with respect to the student's logits is s - t, so an estimate e of the
teacher's t causes an error of e - t. *rms* is the root mean square of that error over all positions, relative to t.
*angle* is the mean angle between s - e and s - t, for a student whose logits are the teacher's plus standard normal
noise. *bias* is the rms of the mean of e over 64 redraws, minus t, on 256 positions: training on many tokens does not
average it out. The mean of an unbiased estimate still varies by about rms / 8; *unbiased* means that the bias is at
most 1.5 times that. A bucket layout trains its head without bias and learns nothing about the ids of the tail. Other
layouts are written from their descriptions (`benchmarks/layouts.py`). DistillKit's curve is a plain least-squares fit
in the rank here; its own fit may be closer. Ours and DistillKit's are whole files; the others are payload only.
"""


@dataclass
class Measured:
    """Error sums of one layout over positions."""

    entries: int = 0
    error2: float = 0.0
    bias2: float = 0.0
    local2: float = 0.0
    angles: list[np.ndarray] = field(default_factory=list)


def distributions(num_tokens: int) -> Iterator[tuple[Window, torch.Tensor, np.ndarray]]:
    """Yield windows, float32 logits [P, V] and float64 probabilities [P, V]."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = resolve("smollm2-135m")
    net = AutoModelForCausalLM.from_pretrained(model.folder, dtype=torch.float32).eval()
    corpus = Corpus(data="stdlib", seed=0)
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    rows = cut_windows(corpus, tokenizer, prefix_tokens=model.prefix_tokens, window_tokens=512, counts=corpus.counts)
    seen = 0
    for window in shuffle_windows(rows, 0):
        with torch.inference_mode():
            logits = net(torch.from_numpy(window.tokens[None].astype(np.int64))).logits[0, :-1].float()
            yield window, logits, torch.softmax(logits.double(), -1).numpy()
        seen += len(window.tokens)
        if seen >= num_tokens:
            return


def merged(estimate: Estimate, num_ids: int) -> Estimate:
    """Return an estimate with each (position, id) once and its weights summed."""
    keys, which = np.unique(estimate[0] * num_ids + estimate[1], return_inverse=True)
    return keys // num_ids, keys % num_ids, np.bincount(which, estimate[2], len(keys))


def errors(estimate: Estimate, t: np.ndarray) -> np.ndarray:
    """Return the squared distance of an estimate to t, float64 [P]."""
    position, ids, weight = merged(estimate, t.shape[1])
    squares: np.ndarray = np.bincount(position, weight * (weight - 2 * t[position, ids]), len(t))
    distance2: np.ndarray = (t**2).sum(1) + squares
    return distance2


def angles(estimate: Estimate, t: np.ndarray, student: np.ndarray, some: np.ndarray) -> np.ndarray:
    """Return the angle in degrees between s - e and s - t at some positions; `student` float64 [len(some), V]."""
    found = student.copy()
    row = np.full(len(t), -1)
    row[some] = np.arange(len(some))
    position, ids, weight = (x[row[estimate[0]] >= 0] for x in estimate)
    np.add.at(found, (row[position], ids), -weight)
    exact = student - t[some]
    cosine = (exact * found).sum(1) / (np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1))
    return np.asarray(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def seconds_per_call(action: Callable[[], object], repeats: int) -> float:
    """Return the median CPU time of an action after one warm-up."""
    action()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        action()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def main() -> None:
    """Measure all layouts and write the page."""
    parser = _common.parser(__doc__)
    parser.add_argument("--tokens", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options = parser.parse_args()

    layouts = all_layouts()
    totals = observe(layouts, options.tokens)
    torch.set_num_threads(1)
    rows, points = [], []
    for layout, sums in zip(layouts, totals.by_layout, strict=True):
        row, point = measure(layout, sums, totals, options.repeats)
        rows.append(row)
        points.append(point)
    text = page(_common.markdown_table(COLUMNS, rows), totals, options)
    print(text)
    _common.write_page(options.out / "shard_format.md", text)
    picture(points, options.out / "shard_format.png")


def all_layouts() -> list[Layout]:
    """Return this project's layout at four thresholds, and those of other systems."""
    model = resolve("smollm2-135m")
    config = DumpConfig(model="smollm2-135m", data="stdlib", out=Path("unused"))
    vocab = model.teacher.vocab_size
    white = torch.from_numpy(engine_config(config, model, record_layout(config, model)[1]).whitespace_mask())
    return [
        *(Ours(c, vocab, white) for c in (0.08, 0.04, 0.02, 0.01)),
        Sampled(50),
        TopK(16),
        TopK(50),
        Megatron(64),
        DistillKit(50, 1, 3, vocab),
        DistillKit(128, 16, 6, vocab),
    ]


@dataclass
class Totals:
    """Sums over all positions, and the errors of each layout."""

    by_layout: list[Measured]
    norm2: float = 0.0
    """Sum of t ** 2."""
    bias_norm2: float = 0.0
    """Sum of t ** 2 over the positions where the bias is measured."""
    tokens: int = 0
    positions: int = 0
    divergence: list[np.ndarray] = field(default_factory=list)
    """KL divergence that quantisation causes at c = 0.04, nats per position."""


def observe(layouts: list[Layout], num_tokens: int) -> Totals:
    """Store about `num_tokens` tokens in every layout and sum the errors of its estimates."""
    totals = Totals([Measured() for _ in layouts])
    rng = np.random.default_rng(0)
    for number, (window, logits, t) in enumerate(distributions(num_tokens)):
        totals.tokens += len(window.tokens)
        totals.positions += len(t)
        totals.norm2 += float((t**2).sum())
        u = draw_offsets(window.info.document, window.info.window, 0, len(t))
        some = np.arange(0, len(t), 32)
        student = np.exp(np.log(np.maximum(t[some], 1e-30)) + rng.normal(0, 1, (len(some), t.shape[1])))
        student /= student.sum(1, keepdims=True)
        few = np.linspace(0, len(t) - 1, 16).astype(int) if number < 16 else np.empty(0, int)
        totals.bias_norm2 += float((t[few] ** 2).sum())
        for layout, sums in zip(layouts, totals.by_layout, strict=True):
            estimate = layout.observe(window, logits, t, u)
            error2 = errors(estimate, t)
            sums.entries += len(estimate[0])
            sums.error2 += float(error2.sum())
            sums.local2 += float(error2[few].sum())
            sums.angles.append(angles(estimate, t, student, some))
            if len(few):
                parts = zip(*(layout.redraw(logits[few], t[few], rng) for _ in range(REDRAWS)), strict=True)
                position, ids, weight = (np.concatenate(part) for part in parts)
                sums.bias2 += float(errors((position, ids, weight / REDRAWS), t[few]).sum())
            if isinstance(layout, Ours) and layout.spec.threshold == 0.04:
                totals.divergence.append(quantisation(layout))
    return totals


def measure(layout: Layout, sums: Measured, totals: Totals, repeats: int) -> tuple[list[str], Point]:
    """Return the table row and the point of the figure of one layout."""
    raw = layout.pack()
    encode = totals.tokens / seconds_per_call(layout.pack, repeats) / 1e6

    def unpack() -> object:
        if isinstance(layout, Ours):
            hashlib.sha256(raw).hexdigest()
        return layout.unpack(raw)

    decode = totals.tokens / seconds_per_call(unpack, repeats) / 1e6
    rms, bias = (sums.error2 / totals.norm2) ** 0.5, (sums.bias2 / totals.bias_norm2) ** 0.5
    local = (sums.local2 / totals.bias_norm2) ** 0.5
    unbiased = "yes" if bias < 1.5 * local / REDRAWS**0.5 else "no"
    size = len(raw) / totals.tokens
    cells = [layout.name, layout.keeps, f"{sums.entries / totals.positions:.1f}", f"{size:.1f}", f"{rms:.3f}"]
    cells += [f"{bias:.3f}", unbiased, f"{np.concatenate(sums.angles).mean():.1f}", f"{encode:.2f}", f"{decode:.2f}"]
    return cells, (layout.name, size, rms, unbiased)


def page(table: str, totals: Totals, options: argparse.Namespace) -> str:
    """Return the page as Markdown."""
    kl = np.concatenate(totals.divergence)
    paragraphs = [
        "# The shard format beside other layouts",
        f"`python -m benchmarks.shard_format --tokens {options.tokens}`, one core, {_common.provenance()}. Speeds are "
        f"medians of {options.repeats} runs, in CPU time; decoding of ours includes the sha256 of every byte.",
        f"SmolLM2-135M-Instruct over {totals.tokens:,} tokens of the standard library in windows of 512.",
        table,
        f"Divergence caused by quantisation alone, ours at c = 0.04: mean {kl.mean():.1e} nat, "
        f"largest of {len(kl):,} positions {kl.max():.1e}.",
        EXPLAINED.strip(),
        "![bytes per token against error](shard_format.png)",
    ]
    return "\n\n".join(paragraphs)


def quantisation(layout: Ours) -> np.ndarray:
    """Return the KL divergence in nats [P] from the exact head and tail of the last row to the stored ones."""
    row = layout.rows[-1]
    chunk = layout.decoded(row)
    exact = row.head_probs.astype(np.float64)
    owner = np.repeat(np.arange(len(row.head_count)), row.head_count)
    tail = np.maximum(1 - np.bincount(owner, exact), 1e-12)
    kl: np.ndarray = np.bincount(owner, exact * np.log(exact / chunk.head_probs))
    kl += tail * np.log(tail / np.maximum(chunk.tail_mass, 1e-12))
    return kl


def picture(points: list[Point], path: Path) -> None:
    """Plot bytes per token against error."""
    with _common.figure(path, size=(8, 4.8), dpi=150) as axes:
        for name, size, rms, unbiased in points:
            ours = name.startswith("ours")
            colour = "#1a7f5a" if ours else ("#4063d8" if unbiased == "yes" else "#b0413e")
            axes.scatter(size, rms, s=55, color=colour, zorder=3)
            axes.annotate(name, (size, rms), xytext=(7, 4), textcoords="offset points", fontsize=8.5)
        own = sorted((size, rms) for name, size, rms, _ in points if name.startswith("ours"))
        axes.plot(*zip(*own, strict=True), color="#1a7f5a", linewidth=1, zorder=2)
        axes.set(xscale="log", yscale="log", xlabel="bytes per token", ylabel="relative rms error of the gradient")
        ticks = [20, 30, 50, 100, 200, 300]
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.set_xticks([], minor=True)
        axes.set_yticks([0.01, 0.02, 0.05, 0.1, 0.2], ["0.01", "0.02", "0.05", "0.1", "0.2"])
        axes.set_yticks([], minor=True)
        axes.set_title("Lower left is better; green and blue are unbiased, red is biased", fontsize=10, loc="left")
        axes.grid(which="both", alpha=0.2)
        axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()

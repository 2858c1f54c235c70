"""One row in readable form: its text and the teacher's choices at each token, for a terminal or a browser.

Of a response, the conversation before it is shown as its messages, and without messages as the text of its context.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shards.errors import ShardError
from shards.format.chunk import Chunk, RowInfo
from shards.format.messages import parse_messages
from shards.model_files.tokenizer import TokenizerRules
from shards.read import Cache

CHOICES = 5
"""Maximum number of choices per position."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionView:
    """One next-token prediction in readable form."""

    text: str
    """The label: the token that the text has."""
    probability: float
    """The teacher's probability of the label."""
    choices: tuple[tuple[str, float], ...]
    """The likeliest tokens of the head and their probabilities."""
    tail: float
    """Mass outside the head."""
    draws: int
    """Number of draws from the tail."""
    entropy: float
    """Entropy of the whole distribution, in nats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowView:
    """A row in readable form."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """Names and values."""
    messages: tuple[tuple[str, str], ...]
    """Role and content of what stands before the first position; () for a window of a document."""
    positions: tuple[PositionView, ...]


def row_view(cache: Cache, number: int) -> RowView:
    """Return a row of a cache in readable form. One chunk is read.

    Args:
        cache: The cache, with its tokens.
        number: Index of the row.

    Raises:
        ShardError: If there is no such row.
    """
    row = _row(cache, number)
    rules = TokenizerRules.load(cache.tokenizer_dir)
    table = rules.token_bytes()
    texts = {t: raw.decode("utf-8", errors="replace") for t, raw in table.items()}
    texts |= {token["id"]: token["content"] for token in rules.added_tokens if token.get("special")}
    info = row.rows[0]
    return RowView(
        title=f"row {number} of {cache.store.root}",
        facts=(
            *_origin(info),
            ("teacher", f"{cache.manifest.teacher.name}: {_teacher_facts(row)}"),
        ),
        messages=_messages(row, table),
        positions=_positions(row, lambda token: texts.get(token) or f"<{token}>"),
    )  # fmt: skip


def _origin(info: RowInfo) -> tuple[tuple[str, str], ...]:
    """Return the facts about where a row is from."""
    licence = f"licence {info.licence or 'not known'}"
    if info.context == 1 and not info.messages:
        return (
            ("text", f"{info.source} {info.path}, bytes {info.byte_start:,} to {info.byte_end:,}"),
            ("document", f"{info.document[:16]}, window {info.window}, {licence}"),
        )
    return (
        ("prompt", f"{info.source} {info.path}, {info.context:,} tokens of context without records"),
        ("document", f"{info.document[:16]}, response {info.window} of {info.byte_end:,} bytes, {licence}"),
    )


def _messages(row: Chunk, table: dict[int, bytes]) -> tuple[tuple[str, str], ...]:
    info = row.rows[0]
    if info.messages:
        return tuple((message["role"], message["content"]) for message in parse_messages(info.messages))
    if info.context == 1:
        return ()
    raw = b"".join(table.get(token, b"") for token in row.tokens[: info.context].tolist())
    return (("context", raw.decode("utf-8", errors="replace")),)


def _teacher_facts(row: Chunk) -> str:
    if not len(row.entropy):
        return "no records, because the response is empty"
    info = row.rows[0]
    in_head = f"{1 - row.tail_mass.mean():.1%} of the mass in the head"
    if np.isnan(row.entropy).any():
        return f"{in_head}; entropy was not stored"
    bits = -float(row.label_logp.sum()) / np.log(2) / max(1, info.byte_end - info.byte_start)
    return f"{bits:.2f} bits per byte, {row.entropy.mean():.2f} nats of entropy, {in_head}"


def _row(cache: Cache, number: int) -> Chunk:
    if not 0 <= number < cache.rows:
        raise ShardError(f"--row {number}: found {cache.rows} rows, expected a number from 0 to {cache.rows - 1}")
    i = 0
    while number >= cache.chunk_rows(i):
        number -= cache.chunk_rows(i)
        i += 1
    return cache[i].row(number)


def _positions(row: Chunk, text_of: Callable[[int], str]) -> tuple[PositionView, ...]:
    positions = []
    for p, label in enumerate(row.labels.tolist()):
        head = slice(int(row.head_starts[p]), int(row.head_starts[p + 1]))
        ids, probs = row.head_ids[head].tolist(), row.head_probs[head].tolist()
        positions.append(
            PositionView(
                text=text_of(label),
                probability=float(np.exp(row.label_logp[p])),
                choices=tuple((text_of(i), q) for i, q in zip(ids[:CHOICES], probs, strict=False)),
                tail=float(row.tail_mass[p]),
                draws=int(row.draw_starts[p + 1] - row.draw_starts[p]),
                entropy=float(row.entropy[p]),
            )
        )
    return tuple(positions)


def to_text(view: RowView, *, width: int = 100) -> str:
    """Return a row as text, one line of at most `width` characters per token."""
    lines = [view.title, *(f"{name:>9}  {value}" for name, value in view.facts), ""]
    for role, content in view.messages:
        lines += [f"{_printable(role)}:", *(f"    {_printable(line)}" for line in content.split("\n")), ""]
    lines.append(f"{'p':>7}  {'token':<16} the teacher's choices")
    for position in view.positions:
        choices = "  ".join(f"{_quoted(text)} {q:.2f}" for text, q in position.choices)
        rest = f"  rest {position.tail:.2f}" if position.tail > 0.005 else ""
        probability = _stored(position.probability, "7.3f")
        lines.append(f"{probability:>7}  {_quoted(position.text):<16} {choices}{rest}"[:width])
    return "\n".join(lines)


def to_html(view: RowView) -> str:
    """Return a row as a self-contained page: the text, each token tinted by its surprise, its choices on hover."""
    body = "".join(_span(p) for p in view.positions)
    facts = "".join(f"<dt>{html.escape(n)}</dt><dd>{html.escape(v)}</dd>" for n, v in view.facts)
    legend = "".join(f'<i style="background:{_tint(q)}">{q:g}</i>' for q in (0.9, 0.5, 0.1, 0.01, 0.001))
    messages = "".join(
        f"<section><b>{html.escape(role)}</b><div>{html.escape(content)}</div></section>"
        for role, content in view.messages
    )
    return _PAGE.format(title=html.escape(view.title), facts=facts, legend=legend, messages=messages, body=body)


def _span(position: PositionView) -> str:
    rows = "".join(
        f"<tr{' class=hit' if text == position.text else ''}><td><code>{html.escape(_quoted(text))}</code></td>"
        f'<td><b style="width:{100 * q:.0f}%"></b></td><td>{q:.3f}</td></tr>'
        for text, q in position.choices
    )
    card = (
        f"<table>{rows}</table><p>{html.escape(_quoted(position.text))}: {_stored(position.probability, '.4f')}. "
        f"Outside the head {position.tail:.3f}, {position.draws} draws. Entropy {_stored(position.entropy, '.2f')} "
        "nats.</p>"
    )
    return f'<span style="background:{_tint(position.probability)}">{html.escape(position.text)}<s>{card}</s></span>'


def _tint(probability: float) -> str:
    """Return a colour: transparent for probability 1, warmer for smaller ones."""
    surprise = min(1.0, -np.log10(max(1e-6, probability)) / 3.5)
    return f"rgba(214, 98, 40, {0.75 * surprise:.2f})"


def _stored(value: float, form: str) -> str:
    """Return a number as text, "?" if the cache does not store it."""
    return "?" if np.isnan(value) else format(value, form)


def _quoted(text: str) -> str:
    return _printable(text.replace("\\", "\\\\").replace(" ", "\u00b7"))


def _printable(text: str) -> str:
    """Return a text with escapes in the place of control characters, which a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
:root {{ color-scheme: light dark; --ink: #1c2024; --soft: #6b7280; --line: #e5e7eb; --ground: #fbfbfa; --paper: #fff;
  --bar: #4b7bd1 }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e5e7eb; --soft: #9ca3af; --line: #374151; --ground: #111827;
  --paper: #1b2433; --bar: #60a5fa }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  margin: 2rem auto; max-width: 62rem; padding: 0 1.5rem }}
h1 {{ font-size: 1.3rem; margin: 0 0 .8rem; overflow-wrap: anywhere }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0 0 1rem }}
dt {{ color: var(--soft) }} dd {{ margin: 0; overflow-wrap: anywhere }}
.legend {{ color: var(--soft); font-size: .85rem }} .legend i {{ font-style: normal; padding: .1rem .5rem;
  margin-left: .3rem; border-radius: .25rem; color: var(--ink) }}
pre {{ font: 13.5px/1.75 ui-monospace, monospace; background: var(--paper); border: 1px solid var(--line);
  border-radius: .6rem; padding: 1.1rem 1.3rem; white-space: break-spaces; overflow-wrap: anywhere }}
section {{ margin: 0 0 .8rem; padding: .7rem 1.3rem; border-left: 3px solid var(--bar); background: var(--paper) }}
section b {{ color: var(--soft); font-size: .85rem }}
section div {{ font: 13.5px/1.6 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere }}
span {{ position: relative; border-radius: .2rem; cursor: default }}
span:hover {{ outline: 1.5px solid #d66228 }}
s {{ display: none; position: absolute; z-index: 9; top: 1.6em; left: 0; width: 21rem; background: var(--paper);
  color: var(--ink); border: 1px solid var(--line); border-radius: .5rem; box-shadow: 0 6px 24px #0002;
  padding: .6rem .8rem; text-decoration: none; font: 13px/1.45 system-ui, sans-serif; white-space: normal }}
span:hover > s, span.open > s {{ display: block }}
table {{ width: 100%; border-collapse: collapse }} td {{ padding: .1rem .3rem; white-space: nowrap }}
td:nth-child(2) {{ width: 55% }} td b {{ display: block; height: .6rem; background: var(--bar); border-radius: .2rem }}
.hit td {{ font-weight: 600 }} .hit b {{ background: #d66228 }} s p {{ margin: .5rem 0 0; color: var(--soft) }}
@media (max-width: 600px) {{ body {{ margin: 1rem auto; padding: 0 .8rem }} pre {{ padding: .8rem }}
  span {{ position: static }}
  s {{ position: fixed; top: auto; bottom: .5rem; left: .5rem; right: .5rem; width: auto }} }}
</style></head><body><h1>{title}</h1><dl>{facts}</dl>
<p class="legend">Each token is tinted by its surprise to the teacher; hover or tap for the choices. Probability:
{legend}</p>
{messages}<pre>{body}</pre></body></html>
"""

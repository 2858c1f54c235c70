"""The main facts about a cache, as one screen of text or one JSON object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from shards.format.relations import RelationLayout
from shards.format.schema import RESPONSES_VERSION
from shards.read import Cache
from shards.reports.fidelity import read_check, report_lines


def summary(cache: Cache) -> dict[str, Any]:
    """Return the facts about a cache as JSON, from its manifest and the result of its last check."""
    manifest = cache.manifest
    return {
        "path": cache.store.root,
        "version": manifest.layout.version,
        "manifest_sha256": cache.manifest_sha256,
        "rows_sha256": manifest.rows_sha256,
        "tokens": cache.tokens,
        "rows": cache.rows,
        "shards": len(manifest.shards),
        "chunks": len(cache),
        "bytes_on_disk": cache.bytes_on_disk,
        "bytes_per_token": round(cache.bytes_per_token, 3),
        "teacher": asdict(manifest.teacher),
        "tokenizer": asdict(manifest.tokenizer),
        "engine": manifest.engine,
        "corpus": manifest.corpus,
        "writer": asdict(manifest.writer) if manifest.writer else None,
        "layout": manifest.layout.to_dict(),
        "settings": manifest.settings,
        "report": manifest.report,
        "check": read_check(cache),
        "code": manifest.code,
    }


def describe(facts: dict[str, Any]) -> str:
    """Return the facts of `summary` as one screen of text."""
    teacher, corpus, engine, report = facts["teacher"], facts["corpus"], facts["engine"], facts["report"]
    has_responses = facts["version"] == RESPONSES_VERSION
    documents = "prompts" if has_responses else "documents"
    of_responses = (
        f", {facts['bytes_on_disk'] / max(1, report['positions']):.2f} per token of a response"
        if has_responses and report
        else ""
    )
    origin = " ".join(x for x in (teacher["repo"], teacher["revision"]) if x)
    lines = [
        ("cache", facts["path"]),
        ("identity", f"{facts['manifest_sha256'][:16]} (manifest), {facts['rows_sha256'][:16]} (rows)"),
        (
            "teacher",
            f"{teacher['name']} ({origin or 'a local folder'}), {_weights_text(teacher['parameters'])}",
        ),
        ("licence", licence_line(teacher)),
        ("engine", f"{engine.get('name')} {engine.get('version')}, {engine.get('dtype')}"),
        ("corpus", f"{corpus.get('source')}: {report.get('documents', 0):,} {documents}"),
        *([("writer", writer_line(facts["writer"]))] if has_responses else []),
        ("rows", f"{facts['rows']:,} in {facts['chunks']:,} chunks of {facts['shards']:,} shards"),
        ("tokens", _tokens_line(facts)),
        (
            "size",
            f"{facts['bytes_on_disk'] / 1e6:,.2f} MB, {facts['bytes_per_token']:.2f} bytes per token{of_responses}",
        ),
        ("records", _records_line(facts["layout"])),
        *([("relations", _relations_line(facts))] if "relations" in facts["layout"] else []),
    ]
    if report:
        lines.append(
            (
                "per token",
                f"{report['head_entries']:.1f} head ids, {report['draws']:.1f} draws"
                + (f"; entropy {report['entropy']:.2f} nats" if "entropy" in report else ""),
            )
        )
    lines += report_lines(report, facts["check"])
    return format_lines(lines)


def absent_line(absent: Sequence[str]) -> str:
    """Return which parts of the records a cache lacks, in words.

    Args:
        absent: Keys of `shards.format.schema.ABSENT_COLUMNS`.
    """
    return ", ".join(_ABSENT[name] for name in absent)


_ABSENT = {
    "draws": "draws of the tail",
    "entropy": "entropy",
    "realised": "log-probabilities of realised tokens outside the head",
    "tail": "mass outside the head (probabilities are those among its ids)",
    "whitespace": "mass on whitespace",
}


def _weights_text(parameters: int) -> str:
    return f"{parameters / 1e6:,.0f} M weights" if parameters else "number of weights not known"


def format_lines(lines: Sequence[tuple[str, str]]) -> str:
    """Return named lines as text, with the names in a column."""
    return "\n".join(f"{name:>10}  {text}" for name, text in lines)


def writer_line(writer: dict[str, Any] | None) -> str:
    """Return who wrote the responses of a cache, and how.

    Args:
        writer: The fields of `shards.format.manifest.Writer`, None if the corpus has the responses.
    """
    if writer is None:
        return "the responses are those of the corpus"
    name = " ".join(x for x in (writer["name"], writer["revision"]) if x)
    return (
        f"{name} (weights {writer['weights_sha256'][:12]}), temperature {writer['temperature']:g}, "
        f"top-p {writer['top_p']:g}, at most {writer['max_new_tokens']:,} tokens, seed {writer['seed']}"
    )


def _tokens_line(facts: dict[str, Any]) -> str:
    report = facts["report"]
    if "context_tokens" not in report:
        return f"{facts['tokens']:,}"
    return f"{facts['tokens']:,}: {report['context_tokens']:,} of context, {report['positions']:,} of responses"


def licence_line(teacher: dict[str, Any]) -> str:
    """Return the teacher's licence, with a warning if its terms restrict training on its outputs.

    Args:
        teacher: A mapping with `licence` and `restricts_outputs`.
    """
    licence = teacher["licence"] or "not known"
    if teacher["restricts_outputs"]:
        licence += (
            " - its terms restrict training other models on its outputs: read them before you use or publish this"
        )
    return licence


def _relations_line(facts: dict[str, Any]) -> str:
    layout, report = RelationLayout.from_dict(facts["layout"]["relations"]), facts["report"]
    text = f"layer {layout.layer}, {layout.heads} heads of {', '.join(map(str, layout.widths))} numbers"
    if any(stored < width for stored, width in zip(layout.stored_widths, layout.widths, strict=True)):
        text += f" projected to {', '.join(map(str, layout.stored_widths))}"
    if not report:
        return text
    size = report["bytes_by_field"].get("relations", 0.0)
    share = report["relation_positions"] / max(1, report["positions"])
    return (
        f"{text}; {report['relation_rows']:,} of {facts['rows']:,} rows ({share:.1%} of the positions), "
        f"{layout.bytes_per_position:,} bytes each, {size:.1f} per token of the cache"
    )


def _records_line(layout: dict[str, Any]) -> str:
    if "absent" in layout:
        return f"imported: the ids that were stored; not stored are {absent_line(layout['absent'])}, and log Z"
    temperatures = ", ".join(f"{t:g}" for t in layout["temperatures"])
    log_z = f"log Z at T = {temperatures}" if temperatures else "no log Z"
    return f"ids of probability {layout['threshold']:g} or more exactly, draws for the rest; {log_z}"

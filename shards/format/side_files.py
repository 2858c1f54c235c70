"""Check the files of a cache that its manifest does not list: entries, plan, check and data card.

Each is written in one form, so that any changed byte shows: JSON in canonical form, or a text that ends with its own
digest. Files that this package did not write are named as not checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any

from shards.errors import IncompleteCacheError, ShardError
from shards.format.manifest import MANIFEST_NAME, ShardEntry
from shards.format.schema import canonical_json
from shards.read import Cache

PLAN_NAME = "plan.json"
"""What a dump was asked for, as `teacher-dump` writes it."""
CHECK_NAME = "check.json"
CARD_NAME = "README.md"
NOTE_NAME = "edit.json"
"""What a cache is made of, as `withdraw`, `merge` and `hydrate` write it before they begin."""
ENTRY_SUFFIX = ".json"
"""After a shard's name: its entry."""
_CARD_MARK = "<!-- sha256 of the card above: "
_CARD_END = re.compile(re.escape(_CARD_MARK) + r"([0-9a-f]{64}) -->\n\Z")
_CARD_SIGNS = ("sha256 of the card", "<!--", "-->")
"""A damaged byte leaves at least two of them."""


def seal_json(found: dict[str, Any]) -> bytes:
    """Return a result as the bytes of its file, with its own digest in it."""
    body = {"sealed": 1, **{key: value for key, value in found.items() if key not in ("sealed", "sha256")}}
    return _sealed(body)


def seal_plan(plan: dict[str, Any]) -> bytes:
    """Return what a dump was asked for as the bytes of its file, with its own digest in it."""
    body = {key: value for key, value in plan.items() if key != "sha256"}
    return canonical_json({**body, "sha256": hashlib.sha256(canonical_json(body)).hexdigest()})


def seal_note(body: dict[str, Any]) -> bytes:
    """Return the note of what a cache is made of, as the bytes of its file, with its own digest in it."""
    return canonical_json({**body, "sha256": hashlib.sha256(canonical_json(body)).hexdigest()})


def seal_card(text: str) -> str:
    """Return the text of a data card with its own digest at its end."""
    return f"{text}{_CARD_MARK}{hashlib.sha256(text.encode()).hexdigest()} -->\n"


def side_problems(cache: Cache) -> Iterator[tuple[str, str]]:
    """Yield the name of each side file that is damaged, and what was found there."""
    for shard in cache.manifest.shards:
        name = shard.name + ENTRY_SUFFIX
        raw = _read(cache, name)
        if raw is not None and raw != canonical_json(shard.to_dict()):
            yield name, _about(cache, name, _entry_problem(raw, shard))
    others = {
        PLAN_NAME: _plan_problem,
        CHECK_NAME: _check_problem,
        CARD_NAME: _card_problem,
        NOTE_NAME: _note_problem,
    }
    for name, problem_of in others.items():
        raw = _read(cache, name)
        if raw is not None and (problem := problem_of(raw)) is not None:
            yield name, _about(cache, name, problem)
    raw = _read(cache, MANIFEST_NAME)
    if raw is not None and raw != cache.manifest.to_bytes():
        yield MANIFEST_NAME, _about(cache, MANIFEST_NAME, "its content is whole, but not its bytes")


def not_checked(cache: Cache) -> list[str]:
    """Return the names in a cache's folder that nothing is known of; [] where the place cannot be listed."""
    try:
        there = cache.store.names()
    except ShardError:
        return []
    manifest = cache.manifest
    known = {MANIFEST_NAME, PLAN_NAME, CHECK_NAME, CARD_NAME, NOTE_NAME, "lost+found"}
    known |= {name for shard in manifest.shards for name in (shard.name, shard.name + ENTRY_SUFFIX)}
    known |= {file.name.partition("/")[0] for file in manifest.files}
    return sorted(name for name in there if name not in known and not name.startswith("."))


def _read(cache: Cache, name: str) -> bytes | None:
    try:
        return cache.store.read(name)
    except IncompleteCacheError:
        return None


def _about(cache: Cache, name: str, problem: str) -> str:
    return f"{cache.store.root}/{name}: {problem}"


def _entry_problem(raw: bytes, shard: ShardEntry) -> str:
    try:
        same = ShardEntry.from_dict(json.loads(raw)) == shard
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "not a readable entry; delete it: the manifest has the same"
    what = "its content is whole, but not its bytes" if same else "the entry is not that of the manifest"
    return f"{what}; delete it: the manifest has the same"


def _plan_problem(raw: bytes) -> str | None:
    """Return what is wrong with a plan; one of an earlier release has no digest but its fingerprint."""
    try:
        plan = dict(json.loads(raw))
        sound = plan["fingerprint"] == hashlib.sha256(canonical_json(plan["identity"])).hexdigest()
        older = plan.keys() == {"fingerprint", "identity"}
        sound = sound and raw == (canonical_json(plan) if older else seal_plan(plan))
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    return None if sound else "the content is not what its digests say; run teacher-dump again, or delete it"


def _check_problem(raw: bytes) -> str | None:
    """Return what is wrong with the result of a check; one of an earlier release has no digest."""
    try:
        found = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return "found no result of a check; delete it, or run teacher-dump --check again"
    if "sealed" not in found and "sha256" not in found:
        return None
    body = {key: value for key, value in found.items() if key != "sha256"}
    try:
        sound = raw == _sealed(body) and found["sealed"] == 1
    except (ValueError, KeyError):
        sound = False
    return None if sound else "the content is not what its digest says; delete it, or run teacher-dump --check again"


def _note_problem(raw: bytes) -> str | None:
    """Return what is wrong with a note of what the cache is made of; one of an earlier release has no digest."""
    try:
        note = dict(json.loads(raw))
        body = {key: value for key, value in note.items() if key != "sha256"}
        known = body.keys() == {"step", "inputs"}
        sound = known and raw == (seal_note(body) if "sha256" in note else canonical_json(body))
    except (ValueError, TypeError, RecursionError):
        sound = False
    return None if sound else "the content is not what its digest says; delete it: the cache can be read without it"


def _card_problem(raw: bytes) -> str | None:
    """Return what is wrong with a data card. One without its digest is of an earlier release, or somebody's own."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8; publish or fetch it again"
    end = _CARD_END.search(text)
    if end is None:
        damaged = _CARD_SIGNS[0] in text or any(sign in text[-200:] for sign in _CARD_SIGNS)
    else:
        damaged = hashlib.sha256(text[: end.start()].encode()).hexdigest() != end[1]
    if damaged:
        return (
            "the text is not what its last line says; publish or fetch it again, or, if you edited it, delete that line"
        )
    return None


def _sealed(body: dict[str, Any]) -> bytes:
    sha256 = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps({**body, "sha256": sha256}, indent=1, allow_nan=False).encode() + b"\n"

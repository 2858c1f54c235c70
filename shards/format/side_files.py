"""Files of a cache that its manifest does not list: entries of shards, plan, check, note and data card.

Each has one valid form, so that any changed byte shows: canonical JSON, or a text that ends with its own digest. This
module writes these forms and finds damage in them; `shards.verify` reads the files of a cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from shards.format.manifest import Manifest, ShardEntry
from shards.format.schema import canonical_json

PLAN_NAME = "plan.json"
"""The settings of a dump, written by `teacher-dump`."""
CHECK_NAME = "check.json"
"""The result of `teacher-dump --check`."""
CARD_NAME = "README.md"
"""The card of a published cache or run."""
NOTE_NAME = "edit.json"
"""The step and the inputs of an edited cache, written by `withdraw`, `merge` and `hydrate` before they begin."""
ENTRY_SUFFIX = ".json"
"""Suffix that makes the name of a shard's entry from the shard's name."""

_OTHER_BYTES = "the content is unchanged, but its bytes are not"
_CARD_MARK = "<!-- sha256 of the card above: "
_CARD_END = re.compile(re.escape(_CARD_MARK) + r"([0-9a-f]{64}) -->\n\Z")
_CARD_SIGNS = ("sha256 of the card", "<!--", "-->")
"""Parts of the last line of a card. One damaged byte leaves at least two of them."""


def seal_json(result: dict[str, Any]) -> bytes:
    """Return a result as the content of its file, with its own digest in it."""
    body = {"sealed": 1, **{key: value for key, value in result.items() if key not in ("sealed", "sha256")}}
    return _indented_with_digest(body)


def seal_plan(plan: dict[str, Any]) -> bytes:
    """Return the plan of a dump as the content of its file, with its own digest in it."""
    return _canonical_with_digest(_without_digest(plan))


def seal_note(body: dict[str, Any]) -> bytes:
    """Return the note of an edited cache as the content of its file, with its own digest in it."""
    return _canonical_with_digest(body)


def seal_card(text: str) -> str:
    """Return the text of a card with its own digest at its end."""
    return f"{text}{_CARD_MARK}{hashlib.sha256(text.encode()).hexdigest()} -->\n"


def is_sealed_card(raw: bytes) -> bool:
    """Return whether a card is as `seal_card` wrote it: nobody has edited it since."""
    text = raw.decode("utf-8", "replace")
    end = _CARD_END.search(text)
    return end is not None and hashlib.sha256(text[: end.start()].encode()).hexdigest() == end[1]


def entry_problem(raw: bytes, shard: ShardEntry) -> str | None:
    """Return the damage in the entry of a shard, None if it is sound.

    Args:
        raw: Content of the entry's file.
        shard: The entry in the manifest.
    """
    if raw == canonical_json(shard.to_dict()):
        return None
    try:
        is_equal = ShardEntry.from_dict(json.loads(raw)) == shard
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return "not a readable entry; delete it: the manifest has the same"
    damage = _OTHER_BYTES if is_equal else "the entry differs from the manifest"
    return f"{damage}; delete it: the manifest has the same"


def manifest_problem(raw: bytes, manifest: Manifest) -> str | None:
    """Return the damage in the bytes of a manifest whose content was read and is sound, None if there is none."""
    return None if raw == manifest.to_bytes() else _OTHER_BYTES


def _plan_problem(raw: bytes) -> str | None:
    """Return the damage in a plan. Plans of earlier releases have no digest but their fingerprint."""
    try:
        plan = dict(json.loads(raw))
        is_sound = plan["fingerprint"] == hashlib.sha256(canonical_json(plan["identity"])).hexdigest()
        is_older = plan.keys() == {"fingerprint", "identity"}
        is_sound = is_sound and raw == (canonical_json(plan) if is_older else seal_plan(plan))
    except (ValueError, KeyError, TypeError, RecursionError):
        is_sound = False
    return None if is_sound else "the content does not match its digests; run teacher-dump again, or delete it"


def _check_problem(raw: bytes) -> str | None:
    """Return the damage in the result of a check. Results of earlier releases have no digest."""
    try:
        check = dict(json.loads(raw))
    except (ValueError, TypeError, RecursionError):
        return "found no result of a check; delete it, or run teacher-dump --check again"
    if "sealed" not in check and "sha256" not in check:
        return None
    try:
        is_sound = raw == _indented_with_digest(_without_digest(check)) and check["sealed"] == 1
    except (ValueError, KeyError):
        is_sound = False
    return None if is_sound else "the content does not match its digest; delete it, or run teacher-dump --check again"


def _note_problem(raw: bytes) -> str | None:
    """Return the damage in the note of an edited cache. Notes of earlier releases have no digest."""
    try:
        note = dict(json.loads(raw))
        body = _without_digest(note)
        has_fields = body.keys() == {"step", "inputs"}
        is_sound = has_fields and raw == (seal_note(body) if "sha256" in note else canonical_json(body))
    except (ValueError, TypeError, RecursionError):
        is_sound = False
    return None if is_sound else "the content does not match its digest; delete it: the cache can be read without it"


def _card_problem(raw: bytes) -> str | None:
    """Return the damage in a data card. Cards of earlier releases and of other authors have no digest."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8; publish or fetch it again"
    end = _CARD_END.search(text)
    if end is None:
        is_damaged = _CARD_SIGNS[0] in text or any(sign in text[-200:] for sign in _CARD_SIGNS)
    else:
        is_damaged = hashlib.sha256(text[: end.start()].encode()).hexdigest() != end[1]
    if is_damaged:
        return (
            "the text does not match the digest in its last line; publish or fetch it again, or, if you edited it, "
            "delete that line"
        )
    return None


PROBLEM_OF: Mapping[str, Callable[[bytes], str | None]] = {
    PLAN_NAME: _plan_problem,
    CHECK_NAME: _check_problem,
    CARD_NAME: _card_problem,
    NOTE_NAME: _note_problem,
}
"""For each side file, the function from its content to the damage in it, None if it is sound."""


def _without_digest(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key != "sha256"}


def _canonical_with_digest(body: dict[str, Any]) -> bytes:
    return canonical_json({**body, "sha256": hashlib.sha256(canonical_json(body)).hexdigest()})


def _indented_with_digest(body: dict[str, Any]) -> bytes:
    sha256 = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps({**body, "sha256": sha256}, indent=1, allow_nan=False).encode() + b"\n"

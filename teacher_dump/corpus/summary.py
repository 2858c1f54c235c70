"""What became of the corpus? The summary at the end of a dump: every filter's count, and what was checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from teacher_dump.corpus.drop_log import NAME

_READ, _KEPT, _DROPPED, _CUTS = "documents read", "documents", "dropped: ", "cuts "


def summary(counts: Mapping[str, int], facts: Mapping[str, Any]) -> list[str]:
    """Return the lines of the summary. `counts` are those of the corpus, `facts` its `provenance`."""
    dropped = {k: n for k, n in counts.items() if k.startswith(_DROPPED)}
    cuts = {k: n for k, n in counts.items() if k.startswith(_CUTS)}
    shown = [(counts.get(_READ, 0), _READ)]
    shown += [(n, k) for k, n in sorted(dropped.items(), key=lambda item: (-item[1], item[0]))]
    left = counts.get(_READ, 0) - sum(dropped.values()) - counts.get(_KEPT, 0)
    if left > 0:
        shown.append((left, "not needed: --max-tokens or --max-documents was reached before"))
    shown.append((counts.get(_KEPT, 0), "documents used"))
    known = {_READ, _KEPT, *dropped, *cuts}
    shown += [(n, k) for k, n in sorted(counts.items()) if k not in known]
    shown += [(n, k) for k, n in sorted(cuts.items())]
    lines = [f"{n:>12,}  {k}" for n, k in shown]
    for benchmark in facts.get("checked_against", ()):
        number = counts.get(f"{_DROPPED}contains {benchmark['name']}", 0)
        lines.append(
            f"checked against {benchmark['name']}: {benchmark['problems']:,} problems ({benchmark['source']}, sha256 "
            f"{benchmark['sha256'][:12]}); {number or 'no'} document{'' if number == 1 else 's'} contained one"
        )
    if not facts.get("checked_against"):
        reason = facts.get("not_checked") or "--decontaminate none"
        lines.append(f"NOT checked against any benchmark ({reason}): do not score students of this cache on one")
    if dropped:
        lines.append(f"each dropped document, with the filter and why: {NAME}")
    return lines

"""Summary of the corpus, printed at the end of a dump: documents per filter and benchmarks checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from teacher_dump.corpus.drop_log import DROP_LOG_NAME

_DROPPED, _CUTS = "dropped: ", "cuts "


def summary_lines(counts: Mapping[str, int], provenance: Mapping[str, Any]) -> list[str]:
    """Return the lines of the summary.

    Args:
        counts: `Corpus.counts`, with the counts of windowing.
        provenance: `filters.pipeline.provenance` of the corpus.
    """
    dropped = {name: count for name, count in counts.items() if name.startswith(_DROPPED)}
    cuts = {name: count for name, count in counts.items() if name.startswith(_CUTS)}
    unit = "answers" if "answers read" in counts else "documents"
    read, used = f"{unit} read", unit
    rows = [(counts.get(read, 0), read)]
    rows += [(count, name) for name, count in sorted(dropped.items(), key=lambda item: (-item[1], item[0]))]
    unused = counts.get(read, 0) - sum(dropped.values()) - counts.get(used, 0)
    if unused > 0:
        rows.append((unused, "not needed: --max-tokens or --max-documents was reached before"))
    rows.append((counts.get(used, 0), f"{unit} used"))
    listed = {read, used, *dropped, *cuts}
    rows += [(count, name) for name, count in sorted(counts.items()) if name not in listed]
    rows += [(count, name) for name, count in sorted(cuts.items())]
    lines = [f"{count:>12,}  {name}" for count, name in rows]
    for benchmark in provenance.get("checked_against", ()):
        number = counts.get(f"{_DROPPED}contains {benchmark['name']}", 0)
        lines.append(
            f"checked against {benchmark['name']}: {benchmark['problems']:,} problems ({benchmark['source']}, sha256 "
            f"{benchmark['sha256'][:12]}); {number or 'no'} {unit[:-1] if number == 1 else unit} contained one"
        )
    if not provenance.get("checked_against"):
        reason = provenance.get("not_checked") or "--decontaminate none"
        lines.append(f"NOT checked against any benchmark ({reason}): do not score students of this cache on one")
    if dropped:
        lines.append(f"each dropped {unit[:-1]}, with the filter and the reason: {DROP_LOG_NAME}")
    return lines

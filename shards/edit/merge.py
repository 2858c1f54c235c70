"""Merge several caches into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shards.edit.rewrite import claim, columns, fetch_files, fetch_shard, rewrite
from shards.edit.withdraw import _finish, _keep
from shards.errors import ShardError
from shards.format.manifest import Manifest, ShardEntry
from shards.read import Cache
from shards.storage.store import OnBytes, ignore_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What a merge did."""

    cache: Cache
    dropped_rows: int
    """Rows that were there twice."""


def merge(caches: Sequence[Cache], out: Path, *, on_bytes: OnBytes = ignore_bytes) -> Merged:
    """Join caches of one teacher in folder `out`, in the order given. Raises ShardError, naming what does not fit."""
    if len(caches) < 2:
        raise ShardError("merge: found one cache, expected at least two")
    for other in caches[1:]:
        _check_fit(caches[0], other)
    claim(out, "merge", [c.manifest_sha256 for c in caches])
    withdrawn = {t.document: c.store.root for c in caches for t in c.manifest.tombstones}
    seen: dict[tuple[bytes, int], tuple[bytes, str]] = {}
    entries: list[ShardEntry] = []
    dropped = 0
    for cache in caches:
        for entry in cache.manifest.shards:
            where = f"{cache.store.root}/{entry.name}"
            name = f"{len(entries):06d}-{entry.rows_sha256[:12]}.arrow"
            source = fetch_shard(cache.store, entry, out / name, on_bytes=on_bytes)
            table = columns(source, ("document", "window", "row_sha256"))
            keep = np.ones(table.num_rows, bool)
            rows = zip(*(table[n].to_pylist() for n in table.column_names), strict=True)
            for r, (document, window, digest) in enumerate(rows):
                if (root := withdrawn.get(document.hex())) is not None:
                    raise ShardError(
                        f"{where}: found document {document.hex()[:12]}, which was withdrawn from {root}; "
                        f"withdraw it from {cache.store.root} first"
                    )
                if (document, window) not in seen:
                    seen[document, window] = digest, where
                    continue
                known, first = seen[document, window]
                if known != digest:
                    raise ShardError(
                        f"{where}: found window {window} of document {document.hex()[:12]}, expected a text that is "
                        f"in no other cache; {first} has that window with other content: keep one of the two"
                    )
                keep[r] = False
            if keep.all():
                entries.append(replace(entry, name=name))
                continue
            dropped += int((~keep).sum())
            made = rewrite(source, replace(entry, name=name), _keep(keep), layout=cache.manifest.layout, out=out)
            if made is None or made.name != name:
                source.unlink()
            if made is not None:
                entries.append(made)
    fetch_files(caches[0], out)
    return Merged(cache=_finish(out, _joined([c.manifest for c in caches], entries, dropped)), dropped_rows=dropped)


def _check_fit(a: Cache, b: Cache) -> None:
    """Raise ShardError unless rows of both caches may stand side by side."""

    def facts(m: Manifest) -> dict[str, Any]:
        return {
            "the teacher's weights": m.teacher.weights_sha256,
            "the tokenizer": m.tokenizer.fingerprint,
            "the prefix tokens": list(m.tokenizer.prefix_tokens),
            "the engine's dtype": m.engine.get("dtype"),
            "the meaning of log-probs": m.engine.get("log_probs"),
            **{f"the layout's {k}": v for k, v in {"tokens": "kept", **m.layout.to_dict()}.items()},
        }

    ours, theirs = facts(a.manifest), facts(b.manifest)
    if differ := [name for name in ours if ours[name] != theirs.get(name)]:
        name = differ[0]
        raise ShardError(
            f"{b.store.root}: found {', '.join(differ)} other than in {a.store.root} ({name}: "
            f"{str(theirs.get(name))[:16]}, expected {str(ours[name])[:16]}); only caches of one teacher, dumped "
            "with one layout, can be merged"
        )


def _joined(manifests: Sequence[Manifest], entries: Iterable[ShardEntry], dropped: int) -> Manifest:
    first = manifests[0]

    def one(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the facts where all parts have the same, else those that agree and all of them in `parts`."""
        if all(p == parts[0] for p in parts):
            return dict(parts[0])
        same = {k: v for k, v in parts[0].items() if all(p.get(k) == v for p in parts)}
        return {**same, "parts": list(parts)}

    corpora = [m.corpus for m in manifests]
    counts: Counter[str] = Counter()
    for corpus in corpora:
        counts.update({k: v for k, v in corpus.items() if isinstance(v, int)})
    sources = dict.fromkeys(str(c.get("source")) for c in corpora)
    stones = {t.document: t for m in manifests for t in m.tombstones}
    step = {"step": "merge", "from": [m.sha256 for m in manifests], "dropped_rows": dropped}
    return replace(
        first,
        engine=one([m.engine for m in manifests]),
        corpus={**one(corpora), "source": " + ".join(sources), **dict(sorted(counts.items()))},
        settings=one([m.settings for m in manifests]),
        code=one([m.code for m in manifests]),
        shards=tuple(entries),
        tombstones=tuple(stones.values()),
        history=(*(h for m in manifests for h in m.history), step),
    )

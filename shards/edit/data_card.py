"""The data card of a published cache: front matter for the hub, loading, provenance and licence terms."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict

from shards.edit.hub_card import TAGS, front_matter, licence_fields
from shards.format.manifest import Manifest
from shards.format.side_files import seal_card
from shards.reports.summary import absent_line, licence_line, writer_line

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"), (10**9, "100M<n<1B"))  # fmt: skip


def data_card(manifest: Manifest, *, licences: Counter[str], url: str) -> str:
    """Return the text of the card, with its own digest.

    Args:
        manifest: Manifest of the published cache.
        licences: Number of rows by the licence of their documents.
        url: Address to load the cache from.
    """
    teacher, corpus = manifest.teacher, manifest.corpus
    has_text, has_responses = manifest.layout.has_tokens, manifest.layout.has_responses
    name = f"Records of {teacher.name}"
    terms = licence_line({"licence": teacher.licence, "restricts_outputs": teacher.restricts_outputs})
    licence_rows = "\n".join(f"| {licence or 'not known'} | {n:,} |" for licence, n in licences.most_common())
    size = sum(s.bytes for s in manifest.shards)
    lines = [
        _front_matter(manifest, name, {teacher.licence, *(licences if has_text else ())}),
        f"# {name}\n",
        f"A teacher's records of every token of {_CONTENT[has_responses]}: {manifest.rows:,} rows, "
        f"{manifest.tokens:,} tokens, {size / 1e6:,.1f} MB. Per position the likeliest ids with their probabilities, "
        f"{_beside_the_head(manifest)}\n",
        "" if has_text else _NO_TEXT_OF[has_responses],
        "## Load\n",
        f"```{_loading(manifest, url)}\n```\n",
        "The files are Arrow: `datasets.load_dataset`, pyarrow and polars open them; the meaning of the codes "
        f"is in `docs/format.md` of teacherless (format version {manifest.layout.version}). Check a copy with "
        "`logit-shards verify PATH`.\n",
        "## Provenance\n",
        "| | |\n|---|---|",
        f"| teacher | {teacher.name} ({' '.join(x for x in (teacher.repo, teacher.revision) if x) or 'local'}) |",
        f"| weights | {f'sha256 {teacher.weights_sha256}' if teacher.weights_sha256 else 'not known'} |",
        f"| tokenizer | {manifest.tokenizer.fingerprint} |",
        f"| engine | {' '.join(str(manifest.engine.get(k, '')) for k in ('name', 'version', 'dtype')).strip()} |",
        f"| corpus | {corpus.get('source', 'not known')} |",
        f"| responses | {_writer(manifest)} |" if has_responses else "",
        f"| cache | manifest {manifest.sha256} |",
        f"| content | rows {manifest.rows_sha256} |",
        f"| withdrawn | {len(manifest.tombstones):,} documents |\n" if manifest.tombstones else "",
        "\n## Licence terms\n",
        f"Teacher: {terms}.\n",
        f"Documents, by the licence that the corpus gives for them:\n\n| licence | rows |\n|---|---|\n{licence_rows}\n",
        "To have a document taken out, name its sha256, repository or path to the publisher: "
        "`logit-shards withdraw` removes it and leaves a tombstone.",
    ]
    return seal_card("\n".join(line for line in lines if line) + "\n")


def _beside_the_head(manifest: Manifest) -> str:
    if absent := manifest.layout.absent:
        return f"imported from another format. Not stored: {absent_line(absent)}."
    return "an unbiased sample of the others, and exact sums; enough to distil the teacher without running it."


_CONTENT = {False: "a corpus of source code", True: "responses to prompts"}
"""What the rows are, by whether they are responses."""
_NO_TEXT = """This copy holds no text: the lists of tokens are empty. `logit-shards hydrate` puts the tokens back from
your own copy of the corpus, and proves by digests that they are the original ones. The ids that the teacher found
likely are here, and often contain the token of the text: this avoids redistribution, it does not keep the text secret.
"""


_NO_RESPONSES = """This copy holds no text: the lists of tokens and the messages are empty. They cannot be put back,
because no corpus holds what a model wrote. The copy serves statistics of the teacher, not training.
"""
_NO_TEXT_OF = {False: _NO_TEXT, True: _NO_RESPONSES}


def _loading(manifest: Manifest, url: str) -> str:
    """Return the language of a code block, and the lines that make use of the cache."""
    if manifest.layout.has_tokens:
        return (
            "python\nimport shards  # pip install teacherless\n\n"
            f"cache = shards.open({json.dumps(url)})\nchunk = cache[0]  # numpy arrays, digests checked"
        )
    if manifest.layout.has_responses:
        return f"\nlogit-shards inspect {url}"
    return f"\nlogit-shards fetch {url} here/\nlogit-shards hydrate here/ --data CORPUS --out whole/"


def _writer(manifest: Manifest) -> str:
    """Return who wrote the responses, in one cell of a table."""
    return writer_line(asdict(manifest.writer) if manifest.writer else None).replace("|", "/")


def _front_matter(manifest: Manifest, name: str, licences: set[str]) -> str:
    tags = [*TAGS]
    tags += ["conversational"] if manifest.layout.has_responses else []
    tags += [] if manifest.layout.has_tokens else ["without-text"]
    fields: dict[str, object] = {
        "pretty_name": name,
        **licence_fields(licences),
        "tags": tags,
        "size_categories": [next((label for most, label in _SIZES if manifest.rows < most), "n>1T")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "*.arrow"}]}],
    }
    return front_matter(fields)

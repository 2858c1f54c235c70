"""Front matter of the cards of published caches and runs: fields that the hub reads, and its names of licences."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

_LICENCES = {
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "isc", "mpl-2.0", "unlicense", "zlib"),
    *("gpl-2.0", "gpl-3.0", "lgpl-2.1", "lgpl-3.0", "agpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "bigcode-openrail-m"),
}
"""Licence names that the hub supports. Others are `other` there, and named in the text."""
TAGS = ("distillation", "knowledge-distillation", "logits", "code", "teacherless")


def licence_fields(licences: Iterable[str]) -> dict[str, object]:
    """Return the fields on licences; names that are "" say nothing.

    Args:
        licences: SPDX identifiers, or the licences' own names.
    """
    names = sorted({name.lower() if name.lower() in _LICENCES else "other" for name in licences if name} or {"other"})
    more = {"license_name": "see-licence-terms-below"} if "other" in names else {}
    return {"license": names[0] if len(names) == 1 else names, **more}


def front_matter(fields: Mapping[str, object]) -> str:
    """Return the fields as the first lines of a card. JSON is valid YAML, so no value can end its field."""
    return "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in fields.items()) + "\n---\n"

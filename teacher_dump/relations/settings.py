"""Settings of relations, and the layout that they give for a teacher."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.format.relations import RelationLayout
from teacher_dump.errors import DumpError
from teacher_dump.model.registry import ModelShape

MOST_DEFAULT_HEADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationSettings:
    """Settings of relations; `shards.runtime.settings_options` turns each field into an option."""

    relations: int | None = field(
        default=None,
        metadata={
            "metavar": "LAYER",
            "default_text": "none",
            "help": "Also record the query, key and value vectors of this layer, from 0; -1 is the last. Needs "
            "--engine transformers.",
        },
    )
    relations_rows: float = field(
        default=0.1, metadata={"metavar": "SHARE", "help": "Share of the documents whose rows get these vectors."}
    )
    relations_heads: int | None = field(
        default=None,
        metadata={
            "default_text": "the largest number up to 16 that fits",
            "help": "Relation heads: equal slices of the concatenated attention heads. Their number must divide the "
            "teacher's and the student's.",
        },
    )
    relations_dims: int = field(
        default=64, metadata={"help": "Numbers stored of a relation head; wider ones are projected at random."}
    )

    def __post_init__(self) -> None:
        if not 0 < self.relations_rows <= 1:
            raise DumpError(f"relations_rows: found {self.relations_rows:g}, expected above 0, at most 1")
        for name in ("relations_heads", "relations_dims"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DumpError(f"{name}: found {value}, expected at least 1")

    def layout(self, name: str, shape: ModelShape, *, seed: int) -> RelationLayout | None:
        """Return what is recorded of a teacher; None without relations.

        Args:
            name: Name of the teacher, for messages.
            shape: Its dimensions.
            seed: Seed of the projections.

        Raises:
            DumpError: The teacher has no such layer, or the relation heads do not fit it.
        """
        if self.relations is None:
            return None
        layer = self.relations + (shape.layers if self.relations < 0 else 0)
        if not 0 <= layer < shape.layers:
            raise DumpError(
                f"--relations {self.relations}: {name} has {shape.layers} layers; expected {-shape.layers} to "
                f"{shape.layers - 1}"
            )
        sizes = [heads * shape.head_dim for heads in (shape.heads, shape.kv_heads, shape.kv_heads)]
        common = math.gcd(*sizes)
        heads = self.relations_heads or next(n for n in range(MOST_DEFAULT_HEADS, 0, -1) if common % n == 0)
        if common % heads:
            raise DumpError(
                f"--relations-heads {heads}: the queries of {name} have {sizes[0]:,} numbers, its keys {sizes[1]:,}; "
                f"expected a divisor of {common:,}"
            )
        widths = (sizes[0] // heads, sizes[1] // heads, sizes[2] // heads)
        try:
            return RelationLayout(layer=layer, heads=heads, widths=widths, dims=self.relations_dims, seed=seed)
        except ShardError as error:
            raise DumpError(f"--relations: {error}") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationRequest:
    """What an engine records of a layer, and for which rows."""

    layout: RelationLayout
    share: float
    """Share of the documents, see `shards.format.relations.has_relations`."""


def relation_request(settings: RelationSettings, folder: Path, *, seed: int) -> RelationRequest | None:
    """Return what an engine records of the teacher in a folder; None without relations.

    Raises:
        DumpError: Its config.json does not name its dimensions, or the settings do not fit them.
    """
    if settings.relations is None:
        return None
    config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    try:
        shape = ModelShape.from_config(config.get("text_config", config))
    except KeyError as error:
        raise DumpError(
            f"--relations: found no {error} in {folder / 'config.json'}, expected the number and size of the attention "
            "heads; leave the option out"
        ) from None
    layout = settings.layout(folder.name, shape, seed=seed)
    assert layout is not None
    return RelationRequest(layout=layout, share=settings.relations_rows)

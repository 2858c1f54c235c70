"""Tests of recorded vectors: against the model's own, projected without bias, in every batch and worker the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import shards
from shards.format.relations import RelationLayout, has_relations
from shards.read import Cache
from shards.verify import verify
from teacher_dump.engines.hf import TransformersEngine
from teacher_dump.engines.records import to_row
from teacher_dump.errors import DumpError
from teacher_dump.fidelity.rescore import check
from teacher_dump.relations.capture import projections
from teacher_dump.relations.settings import RelationRequest, RelationSettings
from teacher_dump.run.dump import dump
from tests.teacher_dump.engines.test_blockwise_logits import CAUSAL, GPT, GQA, SPEC, engine_config, saved, windows
from tests.teacher_dump.helpers import dump_config

EXACT = RelationLayout(layer=1, heads=2, widths=(16, 8, 8), dims=16, seed=3)
"""Relations of a model of `GQA` without a projection: only rotated."""


def request(layout: RelationLayout = EXACT, share: float = 1.0) -> RelationRequest:
    return RelationRequest(layout=layout, share=share)


def exact_vectors(folder: Path, tokens: Any, *, layer: int = 1) -> list[torch.Tensor]:
    """Return queries, keys and values [T, W] by the layer's own matrices and its input."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        ids = torch.from_numpy(np.array(tokens)).long()[None]
        states = model(input_ids=ids, output_hidden_states=True).hidden_states[layer][0]
        block = model.model.layers[layer]
        normed, own = block.input_layernorm(states), block.self_attn
        return [getattr(own, f"{name}_proj")(normed) for name in "qkv"]


def inner_products(vectors: Any, heads: int) -> Any:
    """Return [A, P, P] inner products of vectors [P, W] within each of `heads` slices."""
    split = np.asarray(vectors, np.float64).reshape(len(vectors), heads, -1)
    return np.einsum("iah,jah->aij", split, split)


def test_inner_products_are_those_of_the_model_where_nothing_is_projected(tmp_path: Path) -> None:
    folder = saved(hf.LlamaConfig(**GQA), tmp_path)
    engine = TransformersEngine(engine_config(folder, relations=request()))
    (window,) = windows(40)
    window = replace(window, info=replace(window.info, context=6))
    (packed,) = engine.capture([window])
    row = to_row(window, packed, SPEC)
    assert row.relations is not None
    assert row.relations.shape == (34, EXACT.numbers)
    parts = np.split(row.relations, np.cumsum([2 * 16, 2 * 8]), axis=1)
    for found, exact in zip(parts, exact_vectors(folder, window.tokens), strict=True):
        # Position j is predicted at token context - 1 + j.
        products = inner_products(exact[5:39].numpy(), 2)
        assert inner_products(found, 2) == pytest.approx(products, rel=1e-4, abs=1e-4 * float(np.abs(products).max()))


def test_projections_keep_inner_products_in_expectation_over_seeds() -> None:
    rng = np.random.default_rng(0)
    x_w, y_w = rng.normal(size=(2, 12))
    estimates = []
    for seed in range(400):
        layout = RelationLayout(layer=0, heads=2, widths=(12, 6, 12), dims=6, seed=seed)
        for matrices in (projections(layout)[0].numpy(), projections(layout)[2].numpy()):
            estimates += [float(x_w @ matrix @ matrix.T @ y_w) for matrix in matrices]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - x_w @ y_w) < 4 * error
    # A Gaussian matrix has this variance; an orthogonal one has less.
    assert np.var(estimates) < 0.8 * ((x_w @ x_w) * (y_w @ y_w) + (x_w @ y_w) ** 2) / 6


def test_projections_depend_on_the_seed_and_nothing_else() -> None:
    layout = RelationLayout(layer=0, heads=3, widths=(8, 8, 4), dims=4, seed=1)
    first, again = projections(layout), projections(replace(layout, layer=5))
    other = projections(replace(layout, seed=2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.allclose(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.allclose(first[0], first[1])
    assert not torch.allclose(first[0][0], first[0][1])
    for matrix in first[2]:  # square: a rotation
        assert torch.allclose(matrix @ matrix.T, torch.eye(4, dtype=torch.float64), atol=1e-12)
    for matrix in first[0]:
        assert torch.allclose(matrix.T @ matrix, 2 * torch.eye(4, dtype=torch.float64), atol=1e-12)


def test_rows_of_other_lengths_share_a_batch_and_only_chosen_documents_have_vectors(tmp_path: Path) -> None:
    folder = saved(hf.LlamaConfig(**GQA), tmp_path)
    engine = TransformersEngine(engine_config(folder, relations=request(share=0.5)))
    rows = [
        replace(window, info=replace(window.info, document=hashlib.sha256(bytes([i])).hexdigest()))
        for i, window in enumerate(windows(80, 20, 50, 33))
    ]
    chosen = [has_relations(row.info.document, share=0.5) for row in rows]
    assert len(set(chosen)) == 2
    together = engine._forward(rows)
    for window, packed, is_chosen in zip(rows, together, chosen, strict=True):
        row, alone = to_row(window, packed, SPEC), to_row(window, next(engine.capture([window])), SPEC)
        assert (row.relations is not None) == is_chosen
        if row.relations is not None and alone.relations is not None:
            assert row.relations == pytest.approx(alone.relations, abs=1e-4 * float(np.abs(alone.relations).max()))


@pytest.mark.parametrize("name", ["queries, keys and values in one map", "no attention"])
def test_a_model_without_three_maps_is_refused_by_name(name: str, tmp_path: Path) -> None:
    config = hf.GPT2Config(**GPT) if name.startswith("queries") else CAUSAL["a state space"]()
    layout = replace(EXACT, widths=(16, 16, 16))
    with pytest.raises(DumpError, match="found no q_proj, k_proj and v_proj in layer 1"):
        TransformersEngine(engine_config(saved(config, tmp_path), relations=request(layout)))


def test_a_model_with_other_sizes_than_its_config_says_is_refused(tmp_path: Path) -> None:
    folder = saved(hf.LlamaConfig(**GQA), tmp_path)
    with pytest.raises(DumpError, match="found queries of shape"):
        TransformersEngine(engine_config(folder, relations=request(replace(EXACT, widths=(8, 8, 8)))))


@pytest.fixture(scope="module")
def relation_cache(tiny_teacher: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Return a cache of the tiny teacher with relations of about half of the rows."""
    config = dump_config(tiny_teacher, corpus_folder, tmp_path_factory.mktemp("relations"), relations=HALF)
    cache = dump(config).cache
    assert cache is not None
    return cache


HALF = RelationSettings(relations=-1, relations_rows=0.4)


def test_a_cache_holds_what_its_layout_and_report_say(tiny_teacher: Path, relation_cache: Cache) -> None:
    cache = relation_cache
    assert verify(cache) == []
    layout = cache.manifest.layout.relations
    assert layout == RelationLayout(layer=1, heads=16, widths=(4, 2, 2), dims=64, seed=0)
    assert cache.manifest.settings["relations_rows"] == 0.4
    rows = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
    covered = [row for row in rows if row.relations is not None and len(row.relations.codes)]
    assert 0 < len(covered) < len(rows)
    assert {row.rows[0].document for row in covered} == {
        row.rows[0].document for row in rows if has_relations(row.rows[0].document, share=0.4)
    }
    report = cache.manifest.report
    assert report["relation_rows"] == len(covered)
    assert report["relation_positions"] == sum(len(row.entropy) for row in covered)
    share = report["relation_positions"] / cache.tokens
    assert report["bytes_by_field"]["relations"] == pytest.approx(share * layout.bytes_per_position, rel=0.35)
    row = covered[0]
    assert row.relations is not None
    for found, exact in zip(row.relations.vectors(), exact_vectors(tiny_teacher, row.tokens), strict=True):
        products = inner_products(exact[:-1].numpy(), 16)
        stored = np.einsum("iah,jah->aij", found, found)
        assert np.abs(stored - products).max() < 0.02 * np.abs(products).max()


def test_records_are_the_same_with_and_without_relations(
    tiny_teacher: Path, corpus_folder: Path, relation_cache: Cache, tmp_path: Path
) -> None:
    plain = dump(dump_config(tiny_teacher, corpus_folder, tmp_path)).cache
    assert plain is not None
    assert "relations" not in plain.manifest.layout.to_dict()
    assert "relation_rows" not in plain.manifest.report
    assert "relations_rows" not in plain.manifest.settings

    def records(cache: Cache) -> dict[tuple[str, int], list[bytes]]:
        names = ("tokens", "head_ids", "head_probs", "draw_ids", "entropy", "log_z", "label_logp")
        rows = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
        return {(r.rows[0].document, r.rows[0].window): [getattr(r, n).tobytes() for n in names] for r in rows}

    with_relations, without = records(relation_cache), records(plain)
    assert len(with_relations.keys() & without.keys()) > 5
    assert all(with_relations[key] == without[key] for key in with_relations.keys() & without.keys())


def test_workers_and_a_resumed_run_write_the_same_shards(
    tiny_teacher: Path, corpus_folder: Path, relation_cache: Cache, tmp_path: Path
) -> None:
    for worker in ("2/2", "1/2"):
        config = dump_config(tiny_teacher, corpus_folder, tmp_path, relations=HALF, worker=worker)
        outcome = dump(config)
    assert outcome.cache is not None
    assert outcome.cache.manifest.shards == relation_cache.manifest.shards
    (tmp_path / outcome.cache.manifest.shards[1].name).unlink()
    (tmp_path / "manifest.json").unlink()
    again = dump(dump_config(tiny_teacher, corpus_folder, tmp_path, relations=HALF))
    assert again.new_tasks == 1
    assert shards.open(tmp_path).manifest.shards == relation_cache.manifest.shards


@pytest.mark.parametrize(
    "change", [{"relations_rows": 0.5}, {"relations": 0}, {"relations_dims": 2}, {"relations": None}]
)
def test_another_setting_is_another_cache(
    change: dict[str, Any], tiny_teacher: Path, corpus_folder: Path, relation_cache: Cache
) -> None:
    out = Path(relation_cache.store.base)
    with pytest.raises(DumpError, match="holds a cache with other settings"):
        dump(dump_config(tiny_teacher, corpus_folder, out, relations=replace(HALF, **change)))


def test_the_check_of_a_cache_needs_no_relations(
    tiny_teacher: Path, corpus_folder: Path, relation_cache: Cache
) -> None:
    out = Path(relation_cache.store.base)
    result = check(dump_config(tiny_teacher, corpus_folder, out, relations=HALF), 2)
    assert result["sound"], result["problems"]

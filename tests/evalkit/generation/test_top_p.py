"""Tests of top-p masking and sampling, against a sort of the whole vocabulary in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from evalkit.generation.top_p import mask_outside_top_p  # noqa: E402
from shards.decoding.top_p import sample_top_p  # noqa: E402


def nucleus_by_sorting(logits, top_p: float) -> set[int]:
    probs, ids = logits.double().softmax(-1).sort(descending=True)
    before = probs.cumsum(-1) - probs
    return set(ids[before < top_p].tolist())


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("scale", [0.0001, 1.0, 8.0])  # flat rows need the whole vocabulary, steep ones a few tokens
def test_keeps_the_fewest_tokens_that_hold_the_share(top_p: float, scale: float):
    torch.manual_seed(0)
    logits = scale * torch.randn(5, 3000)
    kept = mask_outside_top_p(logits, top_p)
    for row, given in zip(kept, logits, strict=True):
        expected_ids = nucleus_by_sorting(given, top_p)
        kept_ids = set(row.isfinite().nonzero().flatten().tolist())
        assert len(kept_ids ^ expected_ids) <= 1  # at the border, float32 and float64 may differ by one token
        assert torch.equal(row[row.isfinite()], given[row.isfinite()])


def test_rows_that_differ_in_flatness_are_each_cut_on_their_own():
    torch.manual_seed(0)
    logits = torch.stack([8 * torch.randn(3000), torch.randn(3000) / 100, 8 * torch.randn(3000)])
    together = mask_outside_top_p(logits, 0.9)
    assert torch.equal(together, torch.cat([mask_outside_top_p(row[None], 0.9) for row in logits]))


def test_equally_likely_tokens_are_kept_together_and_the_likeliest_always():
    assert mask_outside_top_p(torch.tensor([[1.0, 1.0, -20.0]]), 0.3).isfinite().tolist() == [[True, True, False]]
    assert mask_outside_top_p(torch.tensor([[5.0, 0.0, 0.0]]), 1e-6).isfinite().tolist() == [[True, False, False]]
    logits = torch.randn(2, 7)
    assert torch.equal(mask_outside_top_p(logits, 1.0), logits)


@pytest.mark.parametrize("top_p", [1e-6, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("scale", [0.1, 6.0])
@pytest.mark.parametrize("has_ties", [False, True])
def test_samples_are_those_of_the_masked_distribution(top_p: float, scale: float, has_ties: bool):
    generator = torch.Generator().manual_seed(0)
    logits_BV = torch.randn(20, 2000, generator=generator) * scale
    if has_ties:
        logits_BV = logits_BV.round()
    draws_B1 = torch.rand(20, 1, generator=generator, dtype=torch.float64)
    cumulative_BV = mask_outside_top_p(logits_BV, top_p).double().softmax(-1).cumsum(-1)
    expected_B = (cumulative_BV / cumulative_BV[:, -1:] <= draws_B1).sum(-1)
    assert torch.equal(sample_top_p(logits_BV.softmax(-1), top_p, draws_B1), expected_B)

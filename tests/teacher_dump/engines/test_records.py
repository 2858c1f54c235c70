"""Records: packed form, rows of a shard, and the sampling offsets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shards.format.chunk import RowInfo
from teacher_dump.engines.records import Records, RecordSpec, draw_offsets, to_row, whitespace_mask
from teacher_dump.tasks.windowing import Window

SPEC = RecordSpec(threshold=0.25, temperatures=(2.0,))


def records() -> Records:
    """Return records of two positions: two ids in the first head, one in the second."""
    return Records(
        head_ids=torch.tensor([[7, 3, -1, -1], [5, -1, -1, -1]], dtype=torch.int32),
        head_probs=torch.tensor([[0.5, 0.3, 0, 0], [0.9, 0, 0, 0]]),
        draw_ids=torch.tensor([[1, 1, -1, -1], [-1, -1, -1, -1]], dtype=torch.int32),
        scalars=torch.tensor([[-1.0, -2.0, 0.5, 0.25], [-0.1, -torch.inf, 0.125, 0.0625]]),
    )


def test_offsets_are_fixed_by_document_window_seed_and_position() -> None:
    first = draw_offsets("abc", 0, 0, 100)
    assert np.array_equal(first[:40], draw_offsets("abc", 0, 0, 40))
    for other in (draw_offsets("abd", 0, 0, 100), draw_offsets("abc", 1, 0, 100), draw_offsets("abc", 0, 1, 100)):
        assert not np.array_equal(first, other)
    assert ((first >= 0) & (first < 1)).all()


def test_packing_is_exact() -> None:
    packed = records().pack()
    assert packed.dtype == torch.int32
    assert packed.shape == (2, SPEC.columns) == (2, 16)
    again = Records.unpack(packed, SPEC)
    for name in Records.__slots__:
        assert torch.equal(getattr(records(), name), getattr(again, name))


def test_a_row_holds_the_used_slots_alone() -> None:
    info = RowInfo(document="0" * 64, window=0, byte_start=0, byte_end=3, source="", path="", licence="")
    window = Window(info=info, tokens=np.array([0, 7, 5], np.int32))
    row = to_row(window, records().pack().numpy(), SPEC)
    assert row.info is info
    assert row.head_count.tolist() == [2, 1]
    assert row.head_ids.tolist() == [7, 3, 5]
    assert row.head_probs == pytest.approx([0.5, 0.3, 0.9])
    assert row.draw_count.tolist() == [2, 0]
    assert row.draw_ids.tolist() == [1, 1]
    assert row.label_logp == pytest.approx([-1.0, -0.1])
    assert row.whitespace_logp.tolist() == [-2.0, -np.inf]
    assert row.entropy.tolist() == [0.5, 0.125]
    assert row.log_z.tolist() == [[0.25], [0.0625]]


def test_the_whitespace_mask_is_one_at_its_ids() -> None:
    assert whitespace_mask(4, (0, 2)).tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("field", "value"), [("threshold", 0.6), ("tail_floor", 0.0), ("tail_floor", 0.1), ("temperatures", (1.0,))]
)
def test_a_specification_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field}: found "):
        RecordSpec(**{field: value})  # type: ignore[arg-type]

"""The bytes of an evidence file: chunks behind damage are found, whatever the damaged bytes say of their length."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pytest

from evalkit.errors import EvalError
from evalkit.rerank import evidence_file
from evalkit.rerank.call_output import CallOutput
from evalkit.rerank.evidence_file import HEAD, SCHEMA, chunk_bytes, chunks, head_end

VERSION = "python 3.11.7, sandbox 4, evidence 1"
PATH = Path("e.arrow")


def chunk(first: int) -> bytes:
    rows = [
        (bytes([number]) * 16, b"p" * 16, f"f({number})", CallOutput("value", str(number), number=float(number)))
        for number in range(first, first + 5)
    ]
    return chunk_bytes(rows, VERSION)


CHUNKS = [chunk(0), chunk(5), chunk(10)]
CONTENT = HEAD + b"".join(CHUNKS)
STARTS = [len(HEAD), len(HEAD + CHUNKS[0]), len(HEAD + CHUNKS[0] + CHUNKS[1])]


def starts(content: bytes) -> list[int]:
    return [found.start for found in chunks(content, head_end(PATH, content))]


def put(place: int, value: bytes) -> bytes:
    return CONTENT[:place] + value + CONTENT[place + len(value) :]


def arrow_reads(content: bytes) -> int:
    return int(pa.ipc.open_stream(content).read_all().num_rows)


def test_chunks_have_their_places_and_versions() -> None:
    found = list(chunks(CONTENT, head_end(PATH, CONTENT)))
    assert [(item.start, item.end - item.start, item.version) for item in found] == [
        (start, len(content), VERSION) for start, content in zip(STARTS, CHUNKS, strict=True)
    ]
    assert [item.batch.column("call").to_pylist()[0] for item in found] == ["f(0)", "f(5)", "f(10)"]
    assert arrow_reads(CONTENT) == 15


def test_a_length_that_asks_for_all_memory_is_damage() -> None:
    """The length of a value before its compression has eight bytes: the last one makes it 2**60."""
    exhausted = 0
    for place in range(STARTS[1], STARTS[2], 8):
        content = put(place + 7, b"\x10")
        try:
            arrow_reads(content)
        except pa.ArrowMemoryError:
            exhausted += 1
        except (pa.ArrowException, OSError):
            pass
        assert starts(content) in ([STARTS[0], STARTS[2]], STARTS)
    assert exhausted


def test_memory_that_is_short_indeed_is_not_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(pa.ipc, "read_message", exhausted)
    assert starts(CONTENT) == []
    monkeypatch.setattr(evidence_file, "_CHUNK_MEMORY", 1 << 60)
    with pytest.raises(MemoryError):
        starts(CONTENT)


@pytest.mark.parametrize("more", [1, 4, 8, len(CHUNKS[2]), len(CHUNKS[2]) - 8])
def test_a_length_that_spans_the_next_chunk_costs_one(more: int) -> None:
    metadata = struct.unpack_from("<i", CHUNKS[1], 4)[0]
    body = len(CHUNKS[1]) - 8 - metadata
    place = CHUNKS[1].index(struct.pack("<q", body), 0, 8 + metadata)
    content = put(STARTS[1] + place, struct.pack("<q", body + more))
    assert starts(content) == [STARTS[0], STARTS[2]]


def test_a_damaged_head_costs_nothing() -> None:
    for place in range(0, len(HEAD), 7):
        content = put(place, bytes([CONTENT[place] ^ 16]))
        begin = head_end(PATH, content)
        assert begin in (0, len(HEAD))
        assert [found.start for found in chunks(content, begin)] == STARTS


def test_evidence_of_another_version_is_no_damage() -> None:
    other = pa.schema(list(SCHEMA), metadata={"evidence_version": "2"}).serialize().to_pybytes()
    content = other + CONTENT[len(HEAD) :].replace(b"evidence 1", b"evidence 2")
    with pytest.raises(EvalError, match=r"e\.arrow: has other columns than evidence of version 1"):
        head_end(PATH, content)
    with pytest.raises(EvalError, match=r"e\.arrow: is no evidence file"):
        head_end(PATH, b"\xff" * 50)

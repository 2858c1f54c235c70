"""The evidence file: what is stored comes back, whatever ends the writer; other versions and damage are said."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest

from evalkit.errors import EvalError
from evalkit.rerank import store as store_module
from evalkit.rerank.call_output import CallOutput
from evalkit.rerank.evidence_file import HEAD, SCHEMA
from evalkit.rerank.store import EvidenceStore, program_digest
from evalkit.sandbox.execute import CallLimits
from tests.evalkit.processes import largest_file

LIMITS = CallLimits(call_cpu_s=0.1)


def opened(path: Path | None, notes: list[str] | None = None, limits: CallLimits = LIMITS) -> EvidenceStore:
    return EvidenceStore(path, limits=limits, note=print if notes is None else notes.append)


def some_output(number: int) -> CallOutput:
    if number % 3 == 0:
        return CallOutput("exception", exception="ValueError", text=f"ValueError: {number}", cpu_s=0.25)
    return CallOutput("value", f"{number:032x}", "int", "", str(number), float(number), 1, 0.125)


def fill(store: EvidenceStore, numbers: range) -> None:
    for number in numbers:
        store.add(program_digest(f"p = {number % 7}"), f"f({number})", some_output(number))


def check(store: EvidenceStore, numbers: Iterable[int]) -> None:
    for number in numbers:
        output = store.get(store.key(program_digest(f"p = {number % 7}"), f"f({number})"))
        assert output is not None
        expected = some_output(number)
        assert output[:5] == expected[:5]
        assert output[6:] == expected[6:]
        assert output.number == expected.number or (math.isnan(output.number) and math.isnan(expected.number))


def test_outputs_come_back_in_parts_and_in_a_file_that_arrow_reads(tmp_path: Path) -> None:
    path, notes = tmp_path / "new" / "e.arrow", []
    for start in range(0, 300, 100):
        with opened(path, notes) as store:
            check(store, range(start))
            fill(store, range(start, start + 100))
    with opened(path, notes) as store:
        assert len(store) == 300
        check(store, range(300))
    table = pa.ipc.open_stream(path).read_all()
    assert table.schema.equals(SCHEMA)
    assert table.column("call").to_pylist() == [f"f({number})" for number in range(300)]
    assert notes == []


def test_a_store_without_a_file_keeps_outputs_in_memory() -> None:
    with opened(None) as store:
        fill(store, range(10))
        check(store, range(10))


@pytest.mark.parametrize("seed", range(3))
def test_a_file_cut_anywhere_loses_only_the_chunk_that_is_cut(tmp_path: Path, seed: int) -> None:
    path, ends = tmp_path / "e.arrow", []
    for start in range(0, 120, 40):
        with opened(path) as store:
            fill(store, range(start, start + 40))
        ends.append(path.stat().st_size)
    content, generator = path.read_bytes(), random.Random(seed)
    for cut in [
        ends[0] + 1,
        ends[1] - 1,
        *(generator.randrange(len(SCHEMA.serialize()), len(content)) for _ in range(25)),
    ]:
        path.write_bytes(content[:cut])
        whole, notes = sum(end <= cut for end in ends), []
        with opened(path, notes) as store:
            assert len(store) == 40 * whole
            check(store, range(40 * whole))
            fill(store, range(40 * whole, 120))
        begun = cut - ([len(SCHEMA.serialize()), *ends][whole])
        said = f"{path}: the last {begun:,} bytes are no complete chunk: cut off and computed again"
        assert notes == ([said] if begun else [])
        with opened(path, notes := []) as store:
            check(store, range(120))
        assert notes == []


@pytest.mark.parametrize(
    ("seed", "number"), [(0, 8), *(pytest.param(seed, 80, marks=pytest.mark.slow) for seed in (1, 2, 3))]
)
def test_a_changed_bit_costs_the_outputs_of_one_chunk(tmp_path: Path, seed: int, number: int) -> None:
    """And none of them becomes a wrong output. The next run reads a file without damage, as any Arrow reader does."""
    path, ends = tmp_path / "e.arrow", [0, len(HEAD)]
    for start in range(0, 120, 20):
        with opened(path) as store:
            fill(store, range(start, start + 20))
        ends.append(path.stat().st_size)
    content, generator = path.read_bytes(), random.Random(seed)
    places = [*range(ends[3], ends[3] + 8), *(generator.randrange(len(content)) for _ in range(number))]
    for place in places:  # the mark and the length of a chunk, and any byte
        path.write_bytes(changed(content, place, generator.randrange(8)))
        chunk = sum(end <= place for end in ends) - 2  # -1 is the head
        rows = range(20 * chunk, 20 * chunk + 20)
        with opened(path, notes := []) as store:
            lost = 120 - len(store)
            assert lost in (0, 20 if chunk >= 0 else 0), place
            assert len(notes) == bool(lost) or chunk < 0
            check(store, [number for number in range(120) if number not in rows or not lost])
            fill(store, rows if lost else range(0))
        with opened(path, notes := []) as store:
            assert len(store) == 120
        versions = ["outputs are of" in note for note in notes]  # a changed letter there is another version
        assert versions in ([], [True]), place
        assert pa.ipc.open_stream(path).read_all().num_rows == 120 + 20 * len(versions)


def changed(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_damage_is_said_and_removed(tmp_path: Path) -> None:
    path, ends = tmp_path / "e.arrow", []
    for start in range(0, 120, 40):
        with opened(path) as store:
            fill(store, range(start, start + 40))
        ends.append(path.stat().st_size)
    content = path.read_bytes()
    path.write_bytes(changed(content, ends[1] - 9, 0) + b"\xff\xff")
    with opened(path, notes := []) as store:
        assert len(store) == 80
    assert notes == [
        f"{path}: {ends[1] - ends[0]:,} bytes are damaged: left out and computed again",
        f"{path}: the last 2 bytes are no complete chunk: cut off and computed again",
    ]
    assert path.read_bytes() == content[: ends[0]] + content[ends[1] :]


def test_a_full_disk_is_one_error_and_the_next_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "e.arrow"
    with opened(path) as store:
        fill(store, range(50))
    size = path.stat().st_size

    def write() -> None:
        with largest_file(size + 1000), opened(path) as store:
            fill(store, range(50, 100))
            store.flush()

    with pytest.raises(EvalError, match=r"e\.arrow: evidence cannot be read or written \(File too large\)"):
        write()
    with opened(path) as store:
        with pytest.raises(EvalError, match="File too large"), largest_file(size + 1000):
            fill(store, range(50, 100))
            store.flush()
        store.flush()  # there is space again
    with opened(path, notes := []) as store:
        check(store, range(100))
    assert notes == []


WRITER = """
import sys, time
from pathlib import Path
from tests.evalkit.rerank.test_store import fill, opened
with opened(Path(sys.argv[1])) as store:
    fill(store, range(50))
    store.flush()
    fill(store, range(50, 100))
    print("written", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_what_it_flushed_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "e.arrow"
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        with pytest.raises(EvalError, match="another evalkit writes this file"), opened(path):
            pass
        os.kill(writer.pid, signal.SIGKILL)
    finally:
        writer.kill()
        writer.wait()
    with opened(path) as store:
        assert len(store) == 50
        check(store, range(50))


def test_an_error_in_the_run_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "e.arrow") as store:
        fill(store, range(10))
        raise KeyboardInterrupt
    with opened(tmp_path / "e.arrow") as store:
        check(store, range(10))


def test_evidence_of_another_version_is_kept_said_and_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, notes = tmp_path / "e.arrow", []
    with monkeypatch.context() as patch:
        patch.setattr(store_module, "sandbox_version", lambda: "python 3.9.1, sandbox 2, evidence 1")
        with opened(path) as store:
            fill(store, range(10))
    with opened(path, notes) as store:
        assert len(store) == 0
        fill(store, range(5))
    current = store_module.sandbox_version()
    assert notes == [f"{path}: 10 outputs are of python 3.9.1, sandbox 2, evidence 1, not {current}: computed again"]
    monkeypatch.setattr(store_module, "sandbox_version", lambda: "python 3.9.1, sandbox 2, evidence 1")
    with opened(path, []) as store:
        check(store, range(10))


def test_the_key_holds_all_that_decides_an_output(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for limits in (LIMITS, CallLimits(call_cpu_s=0.2), CallLimits(call_cpu_s=0.1, memory_bytes=1 << 29)):
        store = opened(None, limits=limits)
        keys |= {
            store.key(program_digest(program), call) for program in ("a = 1", "a = 2") for call in ("f(1)", "f(2)")
        }
    monkeypatch.setattr(store_module, "sandbox_version", lambda: "another")
    keys.add(opened(None).key(program_digest("a = 1"), "f(1)"))
    assert len(keys) == 13
    assert program_digest("a = 1  # text") == program_digest("a=1")


def test_a_failure_of_the_machine_is_not_stored(tmp_path: Path) -> None:
    digest = program_digest("")
    with opened(tmp_path / "e.arrow") as store:
        store.add(digest, "f(1)", CallOutput("infra_error"))
        assert store.get(store.key(digest, "f(1)")) is not None
    with opened(tmp_path / "e.arrow") as store:
        assert len(store) == 0


def test_any_text_of_a_program_can_be_stored(tmp_path: Path) -> None:
    digest = program_digest("'\ud800'")
    with opened(tmp_path / "e.arrow") as store:
        store.add(digest, "f('\ud800\0')", CallOutput("value", "0" * 32))
    with opened(tmp_path / "e.arrow") as store:
        assert store.get(store.key(digest, "f('\ud800\0')")) is not None


@pytest.mark.parametrize(
    "content", [b"no arrow", b"\xff" * 100, pa.schema([("a", pa.int8())]).serialize().to_pybytes()]
)
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "e.arrow"
    path.write_bytes(content)
    with pytest.raises(EvalError, match=r"e\.arrow: (is no evidence file|has other columns)"), opened(path):
        pass
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EvalError, match="name a file in a writable folder"), opened(tmp_path / "file" / "e.arrow"):
        pass

"""Tests of a row in readable form, for a terminal and a browser."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import shards
from shards.cli import main
from shards.format.manifest import FileEntry
from shards.reports.row_view import row_view, to_html, to_text
from shards.storage.atomic import write_atomic
from tests.shards.conftest import LAYOUT


def with_tokenizer(folder: Path, *, special: int = LAYOUT.vocab_size) -> shards.Cache:
    """Return a cache with a tokenizer in which id i has the text "wi ", and one id is special."""
    vocab = {f"w{i}\u2581": i for i in range(LAYOUT.vocab_size) if i != special}
    end = {"id": special, "content": "<|end|>", "special": True}
    raw = json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": [end]}).encode()
    write_atomic(folder / "tokenizer" / "tokenizer.json", raw)
    file = FileEntry(name="tokenizer/tokenizer.json", bytes=len(raw), sha256=hashlib.sha256(raw).hexdigest())
    manifest = replace(shards.open(folder).manifest, files=(file,))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return shards.open(folder)


def test_a_window_is_shown_from_its_second_token(cache_folder: Path) -> None:
    cache = with_tokenizer(cache_folder)
    view, row = row_view(cache, 0), cache[0].row(0)
    assert view.messages == ()
    assert [p.text for p in view.positions] == [f"w{t} " for t in row.tokens[1:].tolist()]
    assert view.facts[0] == ("text", f"a/repository folder/file.py, bytes 0 to {row.rows[0].byte_end:,}")


def test_a_response_is_shown_after_its_messages(response_folder: Path) -> None:
    cache = with_tokenizer(response_folder)
    view, row = row_view(cache, 0), cache[0].row(0)
    assert [role for role, _ in view.messages] == ["system", "user"]
    assert len(view.positions) == len(row.tokens) - row.rows[0].context
    assert [p.text for p in view.positions] == [f"w{t} " for t in row.labels.tolist()]
    assert np.isclose(view.positions[0].probability, np.exp(row.label_logp[0]))
    lines = to_text(view).splitlines()
    assert f"{row.rows[0].context:,} tokens of context without records" in lines[1]
    asked = lines.index("user:")
    assert lines[asked + 1] == f"    {view.messages[1][1]}"
    first_choice = view.positions[0].choices[0][0]
    assert first_choice.strip() in lines[-len(view.positions)]
    page = to_html(view)
    assert page.index("R\u00e9ponds en Python") < page.index("Write &quot;") < page.index("<pre>")
    assert page.count("<section>") == 2


def test_messages_cannot_add_to_the_page(response_folder: Path) -> None:
    view = row_view(with_tokenizer(response_folder), 0)
    hostile = replace(view, messages=(("<script>a</script>", "<img src=x onerror=alert(1)> {0} %s"),))
    page = to_html(hostile)
    assert "<script" not in page
    assert "<img" not in page
    assert "{0} %s" in page


def test_control_characters_do_not_reach_the_terminal(response_folder: Path) -> None:
    view = row_view(with_tokenizer(response_folder), 0)
    hostile = replace(view.positions[0], text="\x1b[2J\x07 \n", choices=(("\x9b\u202e", 1.0),))
    text = to_text(replace(view, messages=(("user\x1b", "one\n\ttwo\x1b]0;x\x07\r"),), positions=(hostile,)))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "    one\n    \\ttwo\\x1b]0;x\\x07\\r\n" in text
    assert "\\x1b[2J\\x07\u00b7\\n" in text


def test_a_context_without_messages_is_shown_as_its_text(response_folder: Path) -> None:
    cache = with_tokenizer(response_folder)
    infos = [info for chunk in cache for info in chunk.rows]
    number = next(n for n, info in enumerate(infos) if info.context > 1 and not info.messages)
    rows = [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]
    text = "".join(f"w{t} " for t in rows[number].tokens[: infos[number].context].tolist())
    assert row_view(cache, number).messages == (("context", text),)


def test_an_empty_response_is_shown(response_folder: Path) -> None:
    cache = with_tokenizer(response_folder)
    view = row_view(cache, 1)
    assert view.positions == ()
    assert "test: no records, because the response is empty" in to_text(view)
    assert "<pre></pre>" in to_html(view)


def test_the_command_prints_a_response_or_writes_its_page(response_folder: Path, tmp_path: Path) -> None:
    with_tokenizer(response_folder)
    run = CliRunner()
    shown = run.invoke(main, ["inspect", str(response_folder), "--row", "0"])
    assert shown.exit_code == 0, shown.output
    assert "user:" in shown.output
    page = tmp_path / "row.html"
    result = run.invoke(main, ["inspect", str(response_folder), "--row", "0", "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert "<section>" in page.read_text()


def test_the_end_of_turn_token_is_named(response_folder: Path) -> None:
    end = int(shards.open(response_folder)[0].row(0).labels[-1])
    view = row_view(with_tokenizer(response_folder, special=end), 0)
    assert view.positions[-1].text == "<|end|>"

"""Tests of dumps of conversations: records of the responses alone, at the right positions; identity and resume."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

import shards
from shards.format.chunk import Chunk
from shards.format.manifest import Writer
from shards.format.messages import parse_messages
from shards.format.schema import RESPONSES_VERSION
from shards.verify import verify
from teacher_dump.config import DumpConfig
from teacher_dump.conversations.settings import ConversationSettings
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.errors import DumpError
from teacher_dump.fidelity.rescore import check
from teacher_dump.model.model_folder import load_tokenizer
from teacher_dump.model.teachers import resolve
from teacher_dump.run.dump import dump
from teacher_dump.run.job import prepare_job
from tests.teacher_dump.conversations.conftest import WRITER, answer, make_chat, question, write_lines
from tests.teacher_dump.conversations.test_verdicts import result
from tests.teacher_dump.helpers import dump_config

Float64 = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def chat_teacher(tiny_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chat(Path(shutil.copytree(tiny_teacher, tmp_path_factory.mktemp("chat") / "chat")))


def chats(number: int = 12) -> Iterator[dict[str, Any]]:
    """Yield conversations: three responses to each of several prompts, some after another turn."""
    for n in range(number):
        before = [question("hello"), answer("hello world")] if n % 6 > 2 else []
        yield {"messages": [*before, question(f"total of {n // 3}"), answer(f"total = {n}\nprint(total)\n")]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "chats.jsonl", chats())


def config(teacher: Path, data: Path, out: Path, **more: Any) -> DumpConfig:
    values = {
        "window_tokens": 200,
        "task_tokens": 300,
        "max_tokens": None,
        "filters": FilterSettings(decontaminate="none"),
    }
    return dump_config(teacher, data, out, **{**values, **more})


@pytest.fixture(scope="module")
def cache(chat_teacher: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> shards.Cache:
    complete = dump(config(chat_teacher, data, tmp_path_factory.mktemp("out") / "o")).cache
    assert complete is not None
    return complete


def rows(cache: shards.Cache) -> list[Chunk]:
    return [chunk.row(r) for chunk in cache for r in range(len(chunk.rows))]


def teacher_log_probs(teacher: Path, row: Chunk, vocab_size: int) -> Float64:
    """Return what the model says after each token of a row, float64 [T, V], from its plain forward."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float64)
    with torch.inference_mode():
        logits = model(torch.from_numpy(row.tokens).long()[None]).logits[0, :, :vocab_size]
    log_probs: Float64 = logits.log_softmax(1).numpy()
    return log_probs


def errors(row: Chunk, log_probs: Float64, shift: int) -> Float64:
    """Return the mean difference of the head of each position from the model's, if position j were j + shift."""
    context = int(row.contexts[0])
    owner = np.repeat(np.arange(len(row.tail_mass)), np.diff(row.head_starts))
    inside = (context - 1 + owner + shift < len(row.tokens)) & (context - 1 + owner + shift >= 0)
    expected = np.exp(log_probs[(context - 1 + owner + shift)[inside], row.head_ids[inside]])
    return np.abs(row.head_probs[inside] - expected)


def test_position_j_is_what_the_teacher_says_after_context_plus_j_tokens(
    cache: shards.Cache, chat_teacher: Path
) -> None:
    for row in rows(cache)[:4]:
        log_probs = teacher_log_probs(chat_teacher, row, cache.manifest.layout.vocab_size)
        right = errors(row, log_probs, 0)
        assert right.max() < 0.012  # half a step of the code
        for shift in (-1, 1):
            assert errors(row, log_probs, shift).mean() > 20 * right.mean()
        context, labels = int(row.contexts[0]), row.labels
        own = log_probs[np.arange(context - 1, len(row.tokens) - 1), labels]
        assert row.label_logp == pytest.approx(own, abs=0.06)


def test_rows_are_conversations_and_end_with_the_end_of_a_turn(cache: shards.Cache, chat_teacher: Path) -> None:
    tokenizer = load_tokenizer(chat_teacher)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    found = rows(cache)
    assert (cache.manifest.layout.version, len(found)) == (RESPONSES_VERSION, 12)
    assert verify(cache) == []
    for row in found:
        (info,) = row.rows
        messages = parse_messages(info.messages)
        whole = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        context = row.tokens[: info.context].tolist()
        assert context == tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert row.labels[-1] == end
        response = tokenizer.decode(row.labels[:-1], clean_up_tokenization_spaces=False)
        assert info.byte_end == len(response.encode())
        assert response.endswith("print(total)\n")
    by_document: dict[str, set[int]] = {}
    for row in found:
        by_document.setdefault(row.rows[0].document, set()).add(row.rows[0].window)
    assert list(by_document.values()) == [{0, 1, 2}] * 4
    assert cache.manifest.corpus["end_of_turn"] == end
    assert (cache.manifest.corpus["chat_template"], cache.manifest.writer) == ("own", None)


def test_the_end_of_a_turn_counts_as_the_end_of_a_text(cache: shards.Cache, chat_teacher: Path) -> None:
    """The mass on tokens that begin with a whitespace byte or end the text, after the last token of the response."""
    vocab_size = cache.manifest.layout.vocab_size
    table = resolve(str(chat_teacher)).rules.token_bytes()
    tokenizer = load_tokenizer(chat_teacher)
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    blank = (b" ", b"\n", b"\r", b"\t")
    white = [i for i, text in table.items() if i < vocab_size and (text[:1] in blank or i in ends)]
    row = rows(cache)[0]
    log_probs = teacher_log_probs(chat_teacher, row, vocab_size)
    expected = np.exp(log_probs[len(row.tokens) - 2, white]).sum()
    assert np.exp(row.whitespace_logp[-1]) == pytest.approx(expected, abs=0.01)


def test_a_base_model_reads_the_plain_template(tiny_teacher: Path, data: Path, tmp_path: Path) -> None:
    cache = dump(config(tiny_teacher, data, tmp_path / "o")).cache
    assert cache is not None
    tokenizer = load_tokenizer(tiny_teacher)
    for row in rows(cache):
        text = "".join(f"{message['content']}\n" for message in parse_messages(row.rows[0].messages))
        expected = [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        assert row.tokens[: row.rows[0].context].tolist() == expected
        assert row.labels[-1] == tokenizer.eos_token_id
    assert cache.manifest.corpus["chat_template"] == "plain"


def test_the_padding_of_the_vocabulary_gets_no_probability(cache: shards.Cache, chat_teacher: Path) -> None:
    vocab_size = len(load_tokenizer(chat_teacher))
    assert cache.manifest.layout.vocab_size == vocab_size
    assert all(int(chunk.draw_ids.max()) < vocab_size for chunk in cache)


def test_a_deleted_shard_is_made_again_with_the_same_rows(
    cache: shards.Cache, chat_teacher: Path, data: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(cache.store.base, tmp_path / "o"))
    for name in ("manifest.json", cache.manifest.shards[0].name, f"{cache.manifest.shards[0].name}.json"):
        os.remove(out / name)
    outcome = dump(config(chat_teacher, data, out))
    assert (outcome.new_tasks, outcome.reused_tasks) == (1, len(cache.manifest.shards) - 1)
    assert outcome.cache is not None
    assert outcome.cache.manifest.rows_sha256 == cache.manifest.rows_sha256
    assert outcome.cache.manifest.corpus == cache.manifest.corpus


def test_workers_share_the_tasks_of_a_folder(
    cache: shards.Cache, chat_teacher: Path, data: Path, tmp_path: Path
) -> None:
    first = dump(config(chat_teacher, data, tmp_path / "o", worker="1/2"))
    assert first.cache is None
    second = dump(config(chat_teacher, data, tmp_path / "o", worker="2/2"))
    assert second.cache is not None
    assert second.cache.manifest.rows_sha256 == cache.manifest.rows_sha256


def test_a_prepared_folder_no_longer_needs_its_conversations(
    cache: shards.Cache, chat_teacher: Path, data: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copy(data, tmp_path / data.name))
    settings = config(chat_teacher, moved, tmp_path / "o")
    prepare_job(settings)
    moved.unlink()
    complete = dump(settings).cache
    assert complete is not None
    assert complete.manifest.rows_sha256 == cache.manifest.rows_sha256


def test_all_turns_are_rows_of_their_own(chat_teacher: Path, data: Path, tmp_path: Path) -> None:
    settings = config(chat_teacher, data, tmp_path / "o", conversations=ConversationSettings(train_on="all"))
    complete = dump(settings).cache
    assert complete is not None
    turns = [len(parse_messages(row.rows[0].messages)) for row in rows(complete)]
    assert sorted(turns) == [1] * 7 + [3] * 6  # the first answer of six conversations is the same
    assert complete.manifest.corpus["train_on"] == "all"
    with pytest.raises(DumpError, match="train_on all there, last requested"):
        dump(config(chat_teacher, data, tmp_path / "o"))


def test_another_chat_template_is_another_cache(
    cache: shards.Cache, chat_teacher: Path, data: Path, tmp_path: Path
) -> None:
    teacher = Path(shutil.copytree(chat_teacher, tmp_path / "chat"))
    out = Path(shutil.copytree(cache.store.base, tmp_path / "o"))
    template = teacher / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "model"))
    with pytest.raises(DumpError, match="chat_template_sha256"):
        dump(config(teacher, data, out))


def written(teacher: Path, **more: Any) -> list[dict[str, Any]]:
    """Return answers of a model with the teacher's tokenizer, two of them."""
    writer = {**WRITER, "tokenizer": resolve(str(teacher)).rules.fingerprint()}
    row = {"messages": [question("q")], "task_id": "t", "prompt_ids": [1, 7, 9], "finish_reason": "length"}
    return [
        {**row, "index": n, "completion": "ab", "ids": [30 + n, 31], "writer": {**writer, **more}} for n in range(2)
    ]


def test_ids_of_the_writer_are_recorded_and_the_manifest_names_it(chat_teacher: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "responses.jsonl", written(chat_teacher))
    complete = dump(config(chat_teacher, data, tmp_path / "o")).cache
    assert complete is not None
    assert sorted(row.tokens.tolist() for row in rows(complete)) == [[1, 7, 9, 30, 31], [1, 7, 9, 31, 31]]
    assert {int(row.contexts[0]) for row in rows(complete)} == {3}
    assert complete.manifest.writer == Writer(**written(chat_teacher)[0]["writer"])


def test_answers_of_several_writers_are_refused(chat_teacher: Path, tmp_path: Path) -> None:
    rows = [*written(chat_teacher), *written(chat_teacher, name="other")]
    data = write_lines(tmp_path / "responses.jsonl", rows)
    with pytest.raises(DumpError, match=r"found answers of the writers (student and other|other and student)"):
        dump(config(chat_teacher, data, tmp_path / "o"))


def test_verdicts_choose_the_answers_and_are_part_of_the_identity(chat_teacher: Path, tmp_path: Path) -> None:
    data = write_lines(tmp_path / "responses.jsonl", written(chat_teacher))
    chosen = ConversationSettings(verdicts=result(tmp_path / "v.json", {"t": [False, True]}, scored=data))
    settings = config(chat_teacher, data, tmp_path / "o", conversations=chosen)
    outcome = dump(settings)
    assert outcome.cache is not None
    assert [row.rows[0].window for row in rows(outcome.cache)] == [1]
    assert outcome.counts["dropped: answer did not pass"] == 1
    dropped = [json.loads(line) for line in (tmp_path / "o" / "dropped.jsonl").read_text().splitlines()]
    assert [(line["path"], line["filter"]) for line in dropped] == [("0 answer 0", "answer did not pass")]
    result(tmp_path / "v.json", {"t": [True, True]}, scored=data)
    with pytest.raises(DumpError, match="verdicts_sha256"):
        dump(settings)


@pytest.mark.parametrize("given", [{"train_on": "last"}, {"verdicts": Path("v.json")}])
def test_options_of_conversations_need_conversations(
    given: dict[str, Any], tiny_teacher: Path, corpus_folder: Path, tmp_path: Path
) -> None:
    settings = config(tiny_teacher, corpus_folder, tmp_path / "o", conversations=ConversationSettings(**given))
    with pytest.raises(DumpError, match="found no conversations, but --train-on or --verdicts is given"):
        dump(settings)
    assert not (tmp_path / "o").exists()


def test_a_cache_of_responses_is_checked_against_the_teacher(
    cache: shards.Cache, chat_teacher: Path, data: Path
) -> None:
    found = check(config(chat_teacher, data, Path(cache.store.base)), 4)
    assert found["sound"], found["problems"]
    checked = [rows(cache)[number] for number in found["row_numbers"]]
    assert found["positions"] == sum(len(row.labels) for row in checked)
    assert found["stored"]["draws"]["agree"] > 0.9


def test_a_plain_dump_has_no_trace_of_conversations(tiny_teacher: Path, corpus_folder: Path, tmp_path: Path) -> None:
    job = prepare_job(dump_config(tiny_teacher, corpus_folder, tmp_path / "o"))
    assert job.layout.version == 1
    assert not {"train_on", "chat_template", "chat_template_sha256", "end_of_turn", "verdicts_sha256"} & {*job.identity}
    windows = itertools.chain.from_iterable(task.windows for task in job.tasks)
    assert {(window.info.context, window.info.messages) for window in windows} == {(1, "")}

"""Responses of a tiny teacher to a few prompts, with its records, and a cache of them.

The teacher has four layers, random weights, and a byte-level tokenizer with one of several chat templates. Its
distributions are stored almost whole, so that the teacher as its own student is at the error of quantisation.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shards.format.chunk import Chunk, RowInfo
from shards.format.messages import messages_json, messages_sha256, parse_messages
from shards.model_files.tokenizer import TokenizerRules
from student_train.data.chat_template import StudentTemplate

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INST = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<end>[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}</s>"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "inst": INST, "plain": None}
"""Chat templates in transformers' language; None for a tokenizer without one."""
SPECIAL = ("<|im_start|>", "<|im_end|>", "</s>")
VOCAB = 300
THRESHOLD = 0.005
SMALLEST = 1e-4
"""Smallest probability in a head."""
ANSWERS = (
    "def f(x):\n    return x + 1\n",
    "The sum is 42.\n\ndef add(a, b):\n    return a + b",
    " 7",
    "caf\u00e9 \u4e2d\u6587",
)
PROMPTS = (
    "Write a function that adds 12 and 30.",
    "return x?",
    "def f(x):\n    return",
    "Say caf\u00e9.",
    "Sum the numbers from 1 to 99, and stop.",
    "Is 7 odd?",
    "Print 'hello' 345 times.",
    "Reverse the list\n[1, 2, 3].",
)


def write_tokenizer(tools: Any, folder: Path, template: str | None, *, vocab: int = VOCAB) -> Path:
    """Write a byte-level tokenizer with a chat template. `<end>` begins and ends a text."""
    from transformers import AutoTokenizer

    tools.train_tokenizer(folder, vocab=vocab - len(SPECIAL))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@dataclass(frozen=True, kw_only=True)
class ResponseWorld:
    """A teacher, the responses that it wrote, and their cache."""

    model: Any
    teacher_dir: Path
    template: StudentTemplate
    rows: list[Chunk]
    shards: Path
    vocab: int

    @property
    def cache_dir(self) -> Path:
        """Cache folder of processes that it starts; its models are folders, so none is looked up there."""
        return self.teacher_dir.parent


def make_world(
    tools: Any,
    root: Path,
    *,
    template: str | None = CHATML,
    write: Callable[..., list[Chunk]] | None = None,
    corpus: dict[str, Any] | None = None,
) -> ResponseWorld:
    """Write a teacher, and a cache of the responses of `write`: `sampled_responses` by default."""
    folder = write_tokenizer(tools, root / "teacher", template)
    model = tools.llama(vocab=VOCAB, spread=0.4)
    with torch.no_grad():  # a teacher that is sure: the step of a stored entropy is finest near 0
        model.model.norm.weight *= 4.0
    model.save_pretrained(folder)
    chat = StudentTemplate.load("teacher", folder)
    rows = (write or sampled_responses)(tools, model, chat)
    shards = tools.write_cache(
        root / "shards", rows, folder, vocab=VOCAB, threshold=THRESHOLD, version=2, repo=str(folder), corpus=corpus
    )
    return ResponseWorld(model=model, teacher_dir=folder, template=chat, rows=rows, shards=shards, vocab=VOCAB)


def given_responses(tools: Any, model: Any, template: StudentTemplate) -> list[Chunk]:
    """Return rows of `ANSWERS`, with the records of the model; every third was cut, so that no turn ends."""
    rng = np.random.default_rng(0)
    rows = []
    for i, prompt in enumerate(PROMPTS):
        messages = messages_json([{"role": "user", "content": prompt}])
        context = template.context_ids(messages)
        for index, answer in enumerate(ANSWERS):
            ids = template.tokenizer(answer, add_special_tokens=False)["input_ids"]
            end = [template.end_of_turn] if (i + index) % 3 else []
            tokens = np.concatenate((context, ids, end)).astype(np.int64)
            rows.append(record(tools, model, template, messages, tokens, len(context), index, rng=rng))
    return rows


def turns(tools: Any, model: Any, template: StudentTemplate) -> list[Chunk]:
    """Return both answers of a conversation of two turns for each prompt, as rows of their own."""
    rng = np.random.default_rng(0)
    rows = []
    for prompt in PROMPTS:
        first = [{"role": "user", "content": prompt}]
        second = [*first, {"role": "assistant", "content": "7"}, {"role": "user", "content": "?"}]
        for index, messages in enumerate(map(messages_json, (first, second))):
            context = template.context_ids(messages)
            ids = template.tokenizer("79"[index], add_special_tokens=False)["input_ids"]
            tokens = np.concatenate((context, ids, [template.end_of_turn])).astype(np.int64)
            rows.append(record(tools, model, template, messages, tokens, len(context), index, rng=rng))
    return rows


def sampled_responses(
    tools: Any, model: Any, template: StudentTemplate, *, samples: int = 3, longest: int = 24, seed: int = 0
) -> list[Chunk]:
    """Return rows of responses with the model's records.

    The model samples text. It is so random that special tokens are left out, and each token ends the turn in one of ten
    cases.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    special = [template.tokenizer.convert_tokens_to_ids(piece) for piece in ("<end>", *SPECIAL)]
    rows = []
    for prompt in PROMPTS:
        messages = messages_json([{"role": "user", "content": prompt}])
        context = template.context_ids(messages)
        for index in range(samples):
            tokens = torch.from_numpy(context.copy())[None]
            with torch.no_grad():
                for _ in range(int(rng.integers(2, longest))):
                    p = model(tokens).logits[0, -1].softmax(-1)
                    p[special] = 0.0
                    p *= 0.9 / p.sum()
                    p[template.end_of_turn] = 0.1
                    tokens = torch.cat([tokens, torch.multinomial(p, 1, generator=generator)[None]], 1)
                    if int(tokens[0, -1]) == template.end_of_turn:
                        break
            rows.append(record(tools, model, template, messages, tokens[0].numpy(), len(context), index, rng=rng))
    return rows


def record(
    tools: Any,
    model: Any,
    template: StudentTemplate,
    messages: str,
    tokens: np.ndarray,
    context: int,
    index: int,
    *,
    rng: np.random.Generator,
) -> Chunk:
    """Return a response with the records of the model: position j is its distribution after context + j tokens."""
    with torch.no_grad():
        logits_TV = model(torch.from_numpy(tokens)[None]).logits[0]
    probs_PV = logits_TV[context - 1 : -1].double().softmax(-1).numpy()
    where = response_info(template, messages, tokens[context:], context, index)
    chunk: Chunk = tools.chunk_of(tokens, tools.records(probs_PV, rng=rng, threshold=SMALLEST), where)
    strings = TokenizerRules.load(template.tokenizer.name_or_path).token_bytes()
    white = [i for i, raw in strings.items() if raw[:1] in (b" ", b"\n", b"\t", b"\r") or i == template.end_of_turn]
    return dataclasses.replace(chunk, whitespace_logp=np.log(probs_PV[:, white].sum(1)).astype(np.float32))


def response_info(template: StudentTemplate, messages: str, response: np.ndarray, context: int, index: int) -> RowInfo:
    """Return the origin of a response."""
    is_ended = len(response) and int(response[-1]) == template.end_of_turn
    text = template.tokenizer.decode(response[: len(response) - bool(is_ended)].tolist())
    return RowInfo(
        document=messages_sha256(messages),
        window=index,
        byte_start=0,
        byte_end=len(text.encode()),
        source="tests",
        path="prompts.jsonl",
        licence="Apache-2.0",
        context=context,
        messages=messages,
    )


def shifted(row: Chunk, by: int) -> Chunk:
    """Return a row whose records are those of the position `by` further on; at the end they repeat in a circle."""
    P = len(row.label_logp)
    source = (np.arange(P) + by) % P

    def ragged(starts: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        parts = [values[starts[p] : starts[p + 1]] for p in source]
        return np.concatenate([[0], np.cumsum([len(part) for part in parts])]), np.concatenate(parts)

    head_starts, head_ids = ragged(row.head_starts, row.head_ids)
    _, head_probs = ragged(row.head_starts, row.head_probs)
    draw_starts, draw_ids = ragged(row.draw_starts, row.draw_ids)
    return dataclasses.replace(
        row,
        head_starts=head_starts,
        head_ids=head_ids,
        head_probs=head_probs,
        draw_starts=draw_starts,
        draw_ids=draw_ids,
        tail_mass=row.tail_mass[source],
        entropy=row.entropy[source],
        label_logp=row.label_logp[source],
        whitespace_logp=row.whitespace_logp[source],
        log_z=row.log_z[source],
    )


def answer_ids(row: Chunk) -> list[int]:
    """Return the ids of a response."""
    return [int(token) for token in row.tokens[row.rows[0].context :]]


def question(row: Chunk) -> str:
    """Return the last message before a response."""
    return parse_messages(row.rows[0].messages)[-1]["content"]


def permuted(world: ResponseWorld, folder: Path, *, template: str | None = None, seed: int = 0) -> Any:
    """Write the teacher with its ids in another order: another tokenizer, and the same function of text.

    Args:
        world: The teacher.
        folder: Folder to write to.
        template: Chat template of the copy.
        seed: Seed of the order.

    Returns:
        The model.
    """
    # Added tokens keep their ids, as the tokenizers package numbers them itself.
    order = np.arange(world.vocab)
    order[: -len(SPECIAL)] = np.random.default_rng(seed).permutation(world.vocab - len(SPECIAL))
    shutil.copytree(world.teacher_dir, folder)
    path = folder / "tokenizer.json"
    data = json.loads(path.read_text())
    data["model"]["vocab"] = {piece: int(order[i]) for piece, i in data["model"]["vocab"].items()}
    for token in data["added_tokens"]:
        token["id"] = int(order[token["id"]])
    path.write_text(json.dumps(data))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("added_tokens_decoder", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = copy.deepcopy(world.model)
    with torch.no_grad():
        model.model.embed_tokens.weight[torch.from_numpy(order)] = world.model.model.embed_tokens.weight.clone()
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = settings.eos_token_id = settings.pad_token_id = int(order[0])
    model.save_pretrained(folder)
    return model

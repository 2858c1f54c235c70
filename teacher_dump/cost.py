"""Estimate of a dump's cost: tasks, bytes, memory, wall time and GPU-hours, before anything is loaded or fetched.

Arithmetic over published numbers: the teacher's shape, a GPU's data sheet, the corpus's size. The one assumption is the
share of a GPU's peak that prefill reaches; it is stated, and given as a range. `how` in the result explains each step.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.runtime.machine import num_threads
from teacher_dump.config import DumpConfig
from teacher_dump.conversations.answer_corpus import AnswerCorpus
from teacher_dump.conversations.read import holds_conversations
from teacher_dump.conversations.verdicts import Verdicts
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.readers.hub import is_hub_id
from teacher_dump.engines.registry import require_relations, select_engine
from teacher_dump.gpu_cost import DEFAULT_MACHINE, PREFILL_SHARES, gpu_cost
from teacher_dump.model.registry import THE_STACK, ModelShape, lookup
from teacher_dump.model.teachers import count_parameters

CPU_FLOPS_PER_CORE = 32e9
"""float32 FLOP/s of a core: SmolLM2-135M prefills about 240 tokens/s on two cores."""
BYTES_PER_TOKEN = 25.0
"""On disk at threshold 0.04 with a flat teacher; sharper teachers need less (docs/benchmarks)."""
_TEXT_BYTES_PER_TOKEN = 3.5
"""UTF-8 bytes of Python per token, for a teacher that has no short name."""
_STACK_DOCUMENTS = 12_962_249
_STACK_BYTES = 64.30e9
_STACK_CITE = "StarCoder, arXiv 2305.06161, table 1, after near-deduplication"


@dataclass(slots=True)
class CorpusEstimate:
    """A number with the steps that lead to it."""

    value: float | None = None
    """None if it is unknown."""
    recorded_share: float = 1.0
    """Share of it that has records: a conversation's context has none."""
    how: list[str] = field(default_factory=list)


def estimate(config: DumpConfig, machine: str | None = None, *, corpus: CorpusEstimate | None = None) -> dict[str, Any]:
    """Estimate what a dump reads, writes and costs. Loads no model and needs no network.

    Args:
        config: The settings of the dump.
        machine: The machine to plan for, such as "8xH100".
        corpus: Tokens of the corpus, where it does not exist yet; by default, those of --data.

    Returns:
        The plan as JSON; unknown numbers are None.

    Raises:
        DumpError: The machine is unknown, or cannot hold the teacher; or the engine cannot record relations.
    """
    engine = select_engine(config.engine)
    require_relations(engine, config.relations)
    corpus = corpus or _corpus_tokens(config)
    tokens = None if corpus.value is None else int(corpus.value)
    tasks = None if tokens is None else -(-tokens // config.task_tokens)
    recorded = None if tokens is None else round(tokens * corpus.recorded_share)
    how = corpus.how
    relations = _relation_bytes(config, how)
    num_bytes = None if recorded is None else round(recorded * (BYTES_PER_TOKEN + relations))
    if tokens is not None and recorded is not None and num_bytes is not None:
        how.append(f"tasks: {tokens:,} / {config.task_tokens:,} tokens = {tasks:,} shards")
        if recorded < tokens:
            how.append(f"records: {tokens:,} tokens x {corpus.recorded_share:.2f} in responses = {recorded:,}")
        with_relations = f" + {relations:.1f} of relations" if relations else ""
        how.append(
            f"bytes: {recorded:,} tokens x {BYTES_PER_TOKEN:g}{with_relations} bytes on disk = {_size(num_bytes)}"
        )
    plan: dict[str, Any] = {
        "model": config.model,
        "data": config.data,
        "engine": engine,
        "tokens": tokens,
        "tasks": tasks,
        "bytes": num_bytes,
        **({"relation_bytes_per_token": round(relations, 2)} if config.relations.relations is not None else {}),
    }
    model = parameters_and_shape(config.model)
    if model is None:
        how.append(f"time: the shape of {config.model} is not known before it is fetched (--fetch)")
        return {**plan, "how": how}
    parameters, shape = model
    entry = lookup(config.model)
    flop, flop_how = flop_per_token(parameters, shape, config.window_tokens)
    how.append(flop_how)
    if machine is None and (config.engine == "transformers" or (entry is not None and entry.package is not None)):
        facts, steps = _cpu_cost(flop, tokens)
    else:
        facts, steps = gpu_cost(
            config, machine or DEFAULT_MACHINE, parameters=parameters, shape=shape, flop_per_token=flop, tokens=tokens
        )
    return {**plan, **facts, "how": [*how, *steps]}


def _relation_bytes(config: DumpConfig, how: list[str]) -> float:
    """Return the mean bytes of relations per token, 0 without them or for an unknown teacher. Adds a step to `how`."""
    if config.relations.relations is None:
        return 0.0
    model = parameters_and_shape(config.model)
    layout = None if model is None else config.relations.layout(config.model, model[1], seed=config.seed)
    if layout is None:
        how.append(f"relations: the shape of {config.model} is not known before it is fetched (--fetch)")
        return 0.0
    share = config.relations.relations_rows
    stored = " + ".join(map(str, layout.stored_widths))
    how.append(
        f"relations of layer {layout.layer}: {layout.heads} heads x ({stored} codes + 3 scales) = "
        f"{layout.bytes_per_position:,} bytes, x {share:g} of the documents = {share * layout.bytes_per_position:.1f} "
        "bytes per token"
    )
    return share * layout.bytes_per_position


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """Return a plan as lines of text."""
    text = [f"{name:>10}  {value}" for name, value in _plan_rows(plan)]
    return [*text, "how:", *(f"            {line}" for line in plan["how"])]


def _plan_rows(plan: dict[str, Any]) -> Iterator[tuple[str, str]]:
    unknown = "not known"
    for name in ("model", "data", "engine"):
        yield name, str(plan[name])
    for name in ("tasks", "tokens"):
        yield name, unknown if plan[name] is None else f"{plan[name]:,}"
    yield "bytes", unknown if plan["bytes"] is None else _size(plan["bytes"])
    if "machine" in plan:
        yield "machine", plan["machine"]
        yield "workers", f"{plan['workers']}, each on {plan['gpus_per_worker']} GPU(s)"
        yield "memory", f"{plan['weight_gb_per_gpu']:g} GB of weights on each GPU"
    for name, key, unit in (("wall time", "hours", " h"), ("GPU-hours", "gpu_hours", "")):
        if plan.get(key) is not None:
            low, high = (plan["range"][i][key] for i in (-1, 0))
            shares = f"{PREFILL_SHARES[-1]:.0%} to {PREFILL_SHARES[0]:.0%} of the peak"
            yield name, f"{plan[key]:,}{unit} ({low:,} to {high:,} at {shares})"
    if "seconds" in plan:
        yield "wall time", f"{plan['seconds'] / 60:,.0f} min on this machine"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def _corpus_tokens(config: DumpConfig) -> CorpusEstimate:
    """CorpusEstimate the tokens of the corpus, after --max-documents and --max-tokens."""
    entry = lookup(config.model)
    bytes_per_token = entry.bytes_per_token if entry else _TEXT_BYTES_PER_TOKEN
    size = _corpus_bytes(config)
    how, tokens = size.how, None
    if size.value is not None:
        tokens = round(size.value / bytes_per_token)
        assumed = "" if entry else " (assumed)"
        how.append(
            f"tokens: {size.value:,.0f} bytes / {bytes_per_token:.2f} bytes of Python per token{assumed} = {tokens:,}"
        )
    if config.max_tokens is not None and (tokens is None or config.max_tokens < tokens):
        how.append(f"tokens: --max-tokens {config.max_tokens:,}" + ("" if tokens is None else f" of {tokens:,}"))
        tokens = config.max_tokens
    return CorpusEstimate(tokens, size.recorded_share, how)


def _corpus_bytes(config: DumpConfig) -> CorpusEstimate:
    """Return the bytes of the documents: published, or counted by reading a local corpus."""
    if config.data == THE_STACK:
        size, limit = _STACK_BYTES, config.max_documents
        how = [f"corpus: {_STACK_DOCUMENTS:,} files, {size / 1e9:.1f} GB ({_STACK_CITE})"]
        if limit is not None and limit < _STACK_DOCUMENTS:
            size *= limit / _STACK_DOCUMENTS
            how.append(f"corpus: --max-documents {limit:,} of them, {size / 1e9:.2f} GB")
        return CorpusEstimate(size, how=how)
    if is_hub_id(config.data):
        return CorpusEstimate(how=["corpus: size not known before it is read; give --max-tokens"])
    if holds_conversations(config.data):
        return _conversation_bytes(config)
    corpus = Corpus(data=config.data, seed=config.seed, max_documents=config.max_documents, filters=config.filters)
    sizes = [len(document.text.encode()) for document in corpus]
    how = [f"corpus: {len(sizes):,} documents, {sum(sizes) / 1e6:.1f} MB, after the filters"]
    return CorpusEstimate(float(sum(sizes)), how=how)


def _conversation_bytes(config: DumpConfig) -> CorpusEstimate:
    """Count the bytes of the conversations in a local corpus, without what the chat template adds to them."""
    given = config.conversations
    corpus = AnswerCorpus(
        data=config.data,
        seed=config.seed,
        train_on=given.train_on or "last",
        verdicts=None if given.verdicts is None else Verdicts.load(given.verdicts, data=config.data),
        filters=config.filters,
        max_documents=config.max_documents,
    )
    sizes = [(len(answer.text.encode()), len(answer.response.encode())) for answer in corpus]
    whole, responses = (float(sum(column)) for column in zip(*sizes, strict=True)) if sizes else (0.0, 0.0)
    how = [
        f"corpus: {len(sizes):,} responses, {responses / 1e6:.1f} MB, with their contexts {whole / 1e6:.1f} MB, after "
        "the filters; the chat template adds some tokens to each"
    ]
    return CorpusEstimate(whole, responses / max(1.0, whole), how)


def parameters_and_shape(name: str) -> tuple[int, ModelShape] | None:
    """Return a model's parameters and shape, published or read from a folder's headers; None if unknown."""
    entry = lookup(name)
    if entry is not None:
        return entry.parameters, entry.shape
    folder = Path(name)
    try:
        model_config = json.loads((folder / "config.json").read_bytes())
        return count_parameters(folder), ModelShape.from_config(model_config.get("text_config", model_config))
    except (OSError, ValueError, KeyError):
        return None


def flop_per_token(parameters: int, shape: ModelShape, window_tokens: int) -> tuple[float, str]:
    """Return the FLOP of prefill per token: a multiply and an add per weight that is multiplied, and attention.

    Of a mixture of experts, those that a token does not use are left out.

    Args:
        parameters: Weights of the model.
        shape: Its dimensions.
        window_tokens: Tokens of a row.

    Returns:
        The FLOP, and the step of the arithmetic as text. Training takes three times as many.
    """
    embedding = 0 if shape.tied else shape.vocab_size * shape.hidden_size
    unused = shape.unused_weights(parameters)
    weights = 2 * (parameters - (unused or 0) - embedding)
    # Scores and mixing: two products of the width of all heads with, on average, half the window.
    attention = 4 * shape.layers * shape.heads * shape.head_dim * window_tokens / 2
    how = (
        f"FLOP per token: 2 x ({parameters / 1e9:.3f} - {embedding / 1e9:.3f} (input table)"
        f"{_unused_step(shape, unused)}) G = {weights / 1e9:.2f} G, attention 4 x {shape.layers} x "
        f"{shape.heads * shape.head_dim:,} x {window_tokens / 2:g} = {attention / 1e9:.2f} G, together "
        f"{(weights + attention) / 1e9:.2f} G"
    )
    if unused is None:
        how += (
            f"; the config names {shape.num_experts} experts, but not which share of the weights a token uses, so that "
            "all are counted"
        )
    return weights + attention, how


def _unused_step(shape: ModelShape, unused: int | None) -> str:
    """Return the term of the experts that a token does not use, "" for a dense model."""
    experts = shape.experts
    if experts is None or not unused:
        return ""
    return (
        f" - {unused / 1e9:.3f} ({experts.layers} layers x {experts.num_experts - experts.num_used} of "
        f"{experts.num_experts} experts unused x {experts.matrices} x {experts.hidden_size:,} x {experts.width:,})"
    )


def _cpu_cost(flop_per_token: float, tokens: int | None) -> tuple[dict[str, Any], list[str]]:
    cores = num_threads().number
    rate = CPU_FLOPS_PER_CORE * cores / flop_per_token
    how = [f"time: {cores} cores at {CPU_FLOPS_PER_CORE / 1e9:.0f} GFLOP/s each: {rate:,.0f} tokens/s"]
    return ({} if tokens is None else {"seconds": round(tokens / rate)}), how

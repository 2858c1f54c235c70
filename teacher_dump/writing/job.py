"""Prepare writing: resolve the writer, claim the folder and load or write the list of prompts.

The result is the same in every process that works on the folder.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from shards.format.manifest import Writer
from shards.format.schema import canonical_json
from shards.model_files.weights import config_sha256
from shards.runtime.machine import DtypeChoice
from teacher_dump.config import DumpConfig
from teacher_dump.conversations.settings import provenance
from teacher_dump.conversations.template import ChatTemplate, TemplateRefusal
from teacher_dump.corpus.drop_log import DropLog
from teacher_dump.engines.base import engine_version, resolve_dtype
from teacher_dump.engines.registry import require_parallelism
from teacher_dump.errors import DumpError
from teacher_dump.model.model_folder import require_quantiser
from teacher_dump.model.teachers import LocalTeacher, resolve
from teacher_dump.writing.engines.base import WriterConfig
from teacher_dump.writing.engines.registry import select_writer
from teacher_dump.writing.prompts.filters import PromptFilter
from teacher_dump.writing.prompts.prompt import ResponsePrompt
from teacher_dump.writing.prompts.sources import (
    pinned,
    portable_prompts,
    prompt_files_sha256,
    read_prompts,
    require_prompts,
)
from teacher_dump.writing.settings import WritingSettings
from teacher_dump.writing.store import ResponseStore
from teacher_dump.writing.task import WritingTask, group_prompts
from teacher_dump.writing.tokenization import WriterTokens


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingJob:
    """Writing with a claimed folder and known tasks."""

    config: DumpConfig
    settings: WritingSettings
    engine: str
    """Name of the engine, never auto."""
    dtype: DtypeChoice
    model: LocalTeacher
    """The writer."""
    tokens: WriterTokens
    writer: Writer
    """Who writes, for each line of responses.jsonl and for the manifest."""
    store: ResponseStore
    tasks: tuple[WritingTask, ...]
    """Empty if the responses are complete."""
    longest_prompt: int
    """Tokens of the longest prompt."""
    counts: dict[str, int]
    """Prompts read, and prompts dropped by reason."""

    def to_writer_config(self) -> WriterConfig:
        """Return the settings of the engine."""
        config, settings = self.config, self.settings
        tensor_parallel_size, pipeline_parallel_size = settings.parallel_sizes(
            config.tensor_parallel_size, config.pipeline_parallel_size
        )
        return WriterConfig(
            folder=self.model.folder,
            tokenizer=self.tokens.tokenizer,
            vocab_size=self.model.teacher.vocab_size,
            padded_vocab_size=self.tokens.padded_vocab_size,
            end_ids=self.tokens.end_ids,
            dtype=self.dtype.dtype,
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            max_length=self.tokens.context_length,
            used_length=min(self.tokens.context_length, self.longest_prompt + settings.max_new_tokens),
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            gpu_memory_utilization=config.gpu_memory_utilization,
            max_num_batched_tokens=config.max_num_batched_tokens,
            quantization=config.quantization if settings.writer is None else None,
        )


def prepare_writing(config: DumpConfig, settings: WritingSettings) -> WritingJob:
    """Claim the folder and determine the tasks: a pure function of the settings, the writer and the prompts.

    Raises:
        DumpError: A setting, the writer, the prompts or the folder cannot be used.
    """
    import torch

    assert settings.prompts is not None
    store = ResponseStore(config.out)
    settings = replace(settings, prompts=pinned(settings.prompts))
    plan = store.read_plan()
    if plan is None:
        require_prompts(str(settings.prompts))  # later starts in the folder no longer need them
    dtype = resolve_dtype(config.dtype)
    engine = select_writer(config.engine, has_gpu=torch.cuda.is_available())
    tensor_parallel_size, pipeline_parallel_size = settings.parallel_sizes(
        config.tensor_parallel_size, config.pipeline_parallel_size
    )
    require_parallelism(
        engine, tensor_parallel_size=tensor_parallel_size, pipeline_parallel_size=pipeline_parallel_size
    )
    model = resolve(settings.writer or config.model, revision=None if settings.writer is not None else config.revision)
    if engine == "transformers":
        require_quantiser(model.folder)
    if settings.writer is not None and not settings.responses_only:
        resolve(config.model, revision=config.revision)  # an unusable teacher is named before hours of writing
    tokens = WriterTokens.of(model)
    writer = _writer(model, settings, config.seed)
    identity = _identity(config, settings, writer, model=model, template=tokens.template, engine=(engine, dtype.dtype))
    identity = _applicable(identity, plan, store)
    prompts, plan = _load_or_save_prompts(store, identity, config, settings, tokens)
    tasks = group_prompts(
        prompts,
        samples=settings.samples,
        answers_per_task=settings.answers_per_task,
        fingerprint=hashlib.sha256(canonical_json(identity)).hexdigest(),
    )
    return WritingJob(
        config=config,
        settings=settings,
        engine=engine,
        dtype=dtype,
        model=model,
        tokens=tokens,
        writer=writer,
        store=store,
        tasks=tuple(tasks),
        longest_prompt=plan["longest_prompt"],
        counts=plan["counts"],
    )


def _writer(model: LocalTeacher, settings: WritingSettings, seed: int) -> Writer:
    """Return who writes: the model, and how it is sampled."""
    return Writer(
        name=model.teacher.name,
        revision=model.teacher.revision,
        weights_sha256=model.teacher.weights_sha256,
        tokenizer=model.rules.fingerprint(),
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        seed=seed,
    )


def _identity(
    config: DumpConfig,
    settings: WritingSettings,
    writer: Writer,
    *,
    model: LocalTeacher,
    template: ChatTemplate,
    engine: tuple[str, str],
) -> dict[str, Any]:
    """Return everything that decides the responses, without paths of this machine."""
    name, dtype = engine
    prompts = str(settings.prompts)
    return {
        "writer": asdict(writer),
        "config_sha256": config_sha256(model.folder),
        "template_sha256": template.sha256,
        "engine": {"name": name, "version": engine_version(name), "dtype": dtype},
        "quantization": config.quantization if settings.writer is None else None,
        "prompts": portable_prompts(prompts),
        "prompt_files": prompt_files_sha256(prompts),
        "max_documents": config.max_documents,
        "filters": provenance(config.filters),
        "samples": settings.samples,
        "answers_per_task": settings.answers_per_task,
    }


def _applicable(identity: dict[str, Any], plan: dict[str, Any] | None, store: ResponseStore) -> dict[str, Any]:
    """Return the identity that applies to the folder, after a check that its plan is the same.

    Raises:
        DumpError: The folder holds responses of other settings; the message names what differs.
    """
    if plan is None:
        if store.is_complete:
            raise DumpError(
                f"{store.responses}: found responses without a readable plan in {store.folder}; record them with "
                "--data, or choose another --out"
            )
        return identity
    old = plan["identity"]
    if identity["prompt_files"] is None:  # the prompts are not on this machine; their list is
        identity = {**identity, "prompt_files": old.get("prompt_files")}
    if store.is_complete:  # nothing will be written, on whatever machine this is
        identity = {**identity, "engine": old.get("engine")}
    differing = {
        name: f"{name} {old.get(name)} there, {identity[name]} requested"
        for name in identity
        if identity[name] != old.get(name)
    }
    if differing:
        if "prompt_files" in differing:
            differing["prompt_files"] = "the files of --prompts have other names or sizes than when it was begun"
        first = "; ".join(list(differing.values())[:2])
        raise DumpError(
            f"--out {store.folder.parent}: holds responses of other settings ({first}); choose another --out"
        )
    return identity


def _load_or_save_prompts(
    store: ResponseStore,
    identity: dict[str, Any],
    config: DumpConfig,
    settings: WritingSettings,
    tokens: WriterTokens,
) -> tuple[list[ResponsePrompt], dict[str, Any]]:
    """Return the prompts and the plan; read the source and write both where they are missing.

    The prompts of a complete store are not needed, and empty.
    """
    plan = store.read_plan()
    if plan is not None:
        prompts = store.read_prompts(plan)
        if prompts is not None or store.is_complete:
            return prompts or [], plan
    counts: Counter[str] = Counter()
    drop_log = DropLog()
    sized = list(_read(config, settings, tokens, counts, drop_log))
    if not sized:
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "nothing to read"
        raise DumpError(f"--prompts {settings.prompts}: found no usable prompt ({kinds}), expected at least one")
    prompts = [prompt for prompt, _ in sized]
    counts["prompts used"] = len(prompts)
    drop_log.save(store.folder)
    return prompts, store.save_plan(identity, prompts, counts, longest_prompt=max(length for _, length in sized))


def _read(
    config: DumpConfig, settings: WritingSettings, tokens: WriterTokens, counts: Counter[str], drop_log: DropLog
) -> Iterator[tuple[ResponsePrompt, int]]:
    """Yield the prompts that pass the filters and leave room for a response, with their numbers of tokens."""
    source = str(settings.prompts)
    is_chat = not tokens.template.is_plain
    check = PromptFilter(config.filters, counts, drop_log)
    usable = _usable(check, check(read_prompts(source, config, drop_log, is_chat=is_chat)), tokens)
    return islice(usable, config.max_documents)


def _usable(
    check: PromptFilter, prompts: Iterable[ResponsePrompt], tokens: WriterTokens
) -> Iterator[tuple[ResponsePrompt, int]]:
    for prompt in prompts:
        try:
            length = len(tokens.prompt_ids(prompt))
        except TemplateRefusal as error:
            check.drop(prompt, "the template does not render it", str(error))
            continue
        if special := tokens.special_token_in(prompt):
            check.drop(prompt, "contains special tokens", special)
            continue
        if length >= tokens.context_length:
            check.drop(prompt, "longer than the writer's context", f"{length:,} tokens")
            continue
        yield prompt, length

"""Speed of writing responses with vLLM, beside a plain `LLM.generate` of the same requests.

Both are given the token ids of the same prompts, the same number of samples, the same sampling settings and at most the
same number of new tokens. `generate` gets all requests in one call, without seeds, and decodes the texts as it does by
default. `writing` is the product: a seed and the log-probability for each response, tasks, and files that are durable.

    python -m benchmarks.writing_rate --json writing_rate.json                     # SmolLM2-135M
    python -m benchmarks.writing_rate --model FOLDER --prompts 2000 --samples 4 --new-tokens 512

Each way runs in a process of its own, in turn. The start of the engine and one warm-up are not counted. Prints new
tokens per second, and the median ratio of rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import _common
from shards.runtime.machine import DTYPES
from teacher_dump.config import DumpConfig
from teacher_dump.corpus.filters.settings import FilterSettings
from teacher_dump.engines.base import resolve_dtype
from teacher_dump.writing.engines.vllm import CLOSE_S, RUNNING, VllmWriter, engine_arguments, set_environment
from teacher_dump.writing.job import WritingJob, prepare_writing
from teacher_dump.writing.settings import WritingSettings
from teacher_dump.writing.task_writer import WritingProgress, write_tasks

WAYS = ("generate", "writing")


def main() -> None:
    """Run both ways in turn and print the table."""
    options = _options()
    options.dtype = resolve_dtype(options.dtype).dtype
    spawn = multiprocessing.get_context("spawn")
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(options.rounds):
        for way in WAYS if number % 2 == 0 else reversed(WAYS):
            receiver, sender = spawn.Pipe(duplex=False)
            child = spawn.Process(target=_measure, args=(way, options, sender))
            child.start()
            tokens, seconds = receiver.recv()
            child.join()
            rates[way].append(tokens / seconds)
            print(f"{way}: {tokens:,} tokens in {seconds:.1f} s, {rates[way][-1]:,.0f} per s", file=sys.stderr)
    ratios = [ours / plain for ours, plain in zip(rates["writing"], rates["generate"], strict=True)]
    for way in WAYS:
        print(f"{way:>10}  {statistics.median(rates[way]):,.0f} new tokens per s")
    print(f"{'ratio':>10}  {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        result = {"machine": _common.provenance(with_torch=True), **settings, "rates": rates, "ratios": ratios}
        _common.write_json(options.json, result)


def _options() -> argparse.Namespace:
    parser = _common.parser(__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--answers-per-task", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measure(way: str, options: argparse.Namespace, sender: Any) -> None:
    """Measure one way, and send the number of new tokens and the seconds."""
    with tempfile.TemporaryDirectory() as folder:
        job = _job(options, Path(folder))
        sender.send(_write(job) if way == "writing" else _generate(job, options))


def _job(options: argparse.Namespace, folder: Path) -> WritingJob:
    """Return a job over prompts of different lengths."""
    prompts = folder / "prompts.jsonl"
    words = "a list of numbers that may hold duplicates and negative values, sorted by the sum of their digits"
    with prompts.open("w") as file:
        for number in range(options.prompts):
            text = f"Write a Python function number {number} over {' '.join(words.split()[: 4 + number % 14])}."
            file.write(json.dumps({"prompt": text}) + "\n")
    config = DumpConfig(
        model=options.model,
        data="",
        out=folder / "out",
        engine="vllm",
        dtype=options.dtype,
        filters=FilterSettings(decontaminate="none"),
    )
    settings = WritingSettings(
        prompts=str(prompts),
        samples=options.samples,
        temperature=options.temperature,
        top_p=options.top_p,
        max_new_tokens=options.new_tokens,
        answers_per_task=options.answers_per_task,
    )
    return prepare_writing(config, settings)


def _write(job: WritingJob) -> tuple[int, float]:
    writer = VllmWriter(job.to_writer_config())
    warm_up = job.tokens.requests(job.tasks[0], seed=1)[:8]
    list(writer.write([(job.tasks[0], warm_up)], lambda tokens, answers: None))
    progress = WritingProgress(sum(task.num_answers for task in job.tasks))
    begin = time.perf_counter()
    write_tasks(job, job.tasks, writer, progress)
    job.store.complete(job.tasks)
    seconds = time.perf_counter() - begin
    writer.close()
    return progress.tokens, seconds


def _generate(job: WritingJob, options: argparse.Namespace) -> tuple[int, float]:
    import torch
    from vllm import LLM, SamplingParams

    config = job.to_writer_config()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    set_environment(config, on_gpu=device == "cuda", running=RUNNING[device])
    llm = LLM(**engine_arguments(config, on_gpu=device == "cuda", running=RUNNING[device]))
    params = SamplingParams(
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.new_tokens,
        stop_token_ids=sorted(config.end_ids),
    )
    requests = [request for task in job.tasks for request in job.tokens.requests(task, seed=0)]
    given: list[Any] = [{"prompt_token_ids": list(request.prompt_ids)} for request in requests]
    llm.generate(given[:8], params, use_tqdm=False)
    begin = time.perf_counter()
    outputs = llm.generate(given, params, use_tqdm=False)
    seconds = time.perf_counter() - begin
    llm.llm_engine.engine_core.shutdown(timeout=CLOSE_S)  # without it this process waits for vLLM's forever
    return sum(len(output.outputs[0].token_ids) for output in outputs), seconds


if __name__ == "__main__":
    main()

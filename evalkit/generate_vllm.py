"""What does the model write, by vLLM? One call with every prompt; the engine batches them itself.

Answers come back when all are done, so an interrupted run starts again. Its own progress bar shows the rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from evalkit.checkpoint import Checkpoint
from evalkit.generate import Answer, Prompt, Settings, cannot_load, end_ids, finish, load_tokenizer, prompt_ids
from evalkit.protocols import Protocol


def write_answers(
    checkpoint: Checkpoint,
    prompts: list[Prompt],
    protocol: Protocol,
    settings: Settings,
    *,
    on_answer: Callable[[Answer], None],
    on_tokens: Callable[[int], None],
) -> None:
    """See `generate.write_answers`."""
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; vLLM's CPU build reads nothing else for it
    import torch
    from vllm import LLM, SamplingParams

    tokenizer = load_tokenizer(checkpoint)
    on_cpu = not torch.cuda.is_available()
    try:
        engine = LLM(
            model=checkpoint.source,
            revision=checkpoint.revision,
            dtype=settings.dtype,
            max_num_seqs=settings.batch_size,
            enforce_eager=on_cpu,  # compiling takes longer than it saves on a CPU
            enable_prefix_caching=False,  # with it, greedy answers can differ from run to run (vllm#15437)
            generation_config="vllm",  # settings from the protocol alone
        )
    except Exception as error:  # the engine fails in a process of its own and reports in many ways
        raise cannot_load(checkpoint, "model", error) from error
    ends = end_ids(tokenizer, None)
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    outputs = engine.generate(
        [{"prompt_token_ids": one} for one in ids],
        [
            SamplingParams(
                temperature=protocol.temperature,
                top_p=protocol.top_p,
                max_tokens=protocol.max_new_tokens,
                stop=list(protocol.stop),
                stop_token_ids=ends,
                include_stop_str_in_output=True,
                seed=prompt.seed if protocol.temperature > 0 else None,
            )
            for prompt in prompts
        ],
    )
    for prompt, given, output in zip(prompts, ids, outputs, strict=True):
        new_ids = list(output.outputs[0].token_ids)
        on_tokens(len(new_ids))
        on_answer(finish(tokenizer, prompt, given, new_ids, protocol, ends))

"""What does the model write, by transformers' generate? For CPUs, small models, and where vLLM is not.

Prompts come sorted by length, so a batch holds little padding; each row stops on its own text; a row that has
stopped is handed out at once, while the others go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from evalkit.checkpoint import Checkpoint
from evalkit.generate import Answer, Prompt, Settings, cannot_load, end_ids, finish, fitting_ids, load_tokenizer
from evalkit.protocols import Protocol, cut

_TAIL_IDS = 16
"""New ids in which a stop string is looked for at each step: longer than any stop string in tokens."""


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
    import torch
    from transformers import GenerationConfig

    tokenizer = load_tokenizer(checkpoint)
    model = _load_model(checkpoint, settings)
    ends = end_ids(tokenizer, checkpoint)
    sampling = {"do_sample": True, "temperature": protocol.temperature, "top_p": protocol.top_p, "top_k": 0}
    longest = getattr(model.config, "max_position_embeddings", None) or 1 << 30
    ids = fitting_ids(checkpoint, tokenizer, prompts, model.config)
    for start in range(0, len(prompts), settings.batch_size):
        batch = prompts[start : start + settings.batch_size]
        batch_ids = ids[start : start + settings.batch_size]
        padded = tokenizer.pad({"input_ids": batch_ids}, return_tensors="pt").to(model.device)
        width = padded["input_ids"].shape[1]
        # Only the protocol decides: what the checkpoint says about penalties or sampling is left out.
        model.generation_config = GenerationConfig(
            max_new_tokens=min(protocol.max_new_tokens, longest - width),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=ends or None,
            **(sampling if protocol.temperature > 0 else {"do_sample": False}),
        )
        watch = _Watch(tokenizer, batch, batch_ids, protocol, ends, width, on_answer, on_tokens)
        torch.manual_seed(batch[0].seed)
        with torch.inference_mode():
            written = model.generate(
                input_ids=padded["input_ids"],
                attention_mask=padded["attention_mask"],
                stopping_criteria=[watch],
            )
        watch.hand_out_rest(written)


class _Watch:
    """A stopping criterion: looks at each row's newest text, hands out rows that are done."""

    def __init__(
        self,
        tokenizer: Any,
        batch: list[Prompt],
        batch_ids: list[list[int]],
        protocol: Protocol,
        ends: list[int],
        width: int,
        on_answer: Callable[[Answer], None],
        on_tokens: Callable[[int], None],
    ) -> None:
        self._tokenizer, self._batch, self._batch_ids = tokenizer, batch, batch_ids
        self._protocol, self._ends, self._width = protocol, ends, width
        self._on_answer, self._on_tokens = on_answer, on_tokens
        self._open = set(range(len(batch)))

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        self._on_tokens(len(self._open))
        tails = input_ids[:, max(self._width, input_ids.shape[1] - _TAIL_IDS) :].tolist()
        for row in sorted(self._open):
            ended = tails[row][-1] in self._ends
            if ended or cut(self._tokenizer.decode(tails[row]), self._protocol.stop)[1]:
                self._hand_out(row, input_ids, at_any_rate=False)
        done = [row not in self._open for row in range(len(self._batch))]
        return torch.tensor(done, device=input_ids.device)

    def hand_out_rest(self, input_ids: Any) -> None:
        """Give out the rows that ran to the longest length."""
        for row in sorted(self._open):
            self._hand_out(row, input_ids, at_any_rate=True)

    def _hand_out(self, row: int, input_ids: Any, *, at_any_rate: bool) -> None:
        new_ids = input_ids[row, self._width :].tolist()
        prompt, given = self._batch[row], self._batch_ids[row]
        answer = finish(self._tokenizer, prompt, given, new_ids, self._protocol, self._ends)
        # A tail decoded alone may seem to hold a stop string that the whole answer does not.
        if at_any_rate or answer.stop_reason != "length":
            self._open.discard(row)
            self._on_answer(answer)


def _load_model(checkpoint: Checkpoint, settings: Settings) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            checkpoint.source, revision=checkpoint.revision, dtype=getattr(torch, settings.dtype)
        )
    except Exception as error:  # safetensors, torch and each model class fail in their own ways on bad files
        raise cannot_load(checkpoint, "model", error) from error
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

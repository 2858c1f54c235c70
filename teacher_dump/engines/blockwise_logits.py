"""The logits of a causal language model, computed in blocks of positions.

Architectures differ in what they do between the last hidden states and the logits: scales, soft caps, biases,
transforms. None of it is repeated here. The body (all modules below the head) runs once over whole rows. The model's
own forward then runs for each block of positions, while a stand-in for the body returns the hidden states of the block.
Memory is [block, V] in place of [T, V]. A model whose body cannot be replaced runs whole.

At load, `BlockwiseLogits` compares a few positions with the model's plain forward, and checks that the model is causal
and that two runs agree. It refuses a model with the difference that it measured.

Shapes: B rows, T positions of a row, P positions of a block, D width, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from teacher_dump.errors import DumpError
from teacher_dump.model.causal_lm import forward_options
from teacher_dump.model.rope import length_changes

PROBE_TOKENS = 48
PROBE_BLOCK = 13
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 1 / 32}
"""Largest difference of logits that counts as rounding, relative to the largest distance of a logit from their mean.
For bfloat16: 8 of its steps. A logit scale of 0.9 differs by 0.1."""
CAUSAL_TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-6, torch.bfloat16: 1 / 64}
"""The same for the effect of later tokens on earlier logits. Both runs have the same shape, so a causal model differs
only if its experts receive other numbers of tokens."""
WHOLE_BYTES = 2 * 2**30
"""Largest float32 tensor [T, V] of logits for a model that can only run whole."""
_FORWARD_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError)

BlockLogits = Callable[[int, int, int], torch.Tensor]
"""Function of (row, start, stop) that returns the logits of these positions, [stop - start, V]."""


class _BodyDone(Exception):
    """Ends a forward pass after the body."""


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Output of the body, and the hidden states in it."""

    output: Any
    states_BTD: torch.Tensor

    @classmethod
    def of(cls, output: Any, shape: torch.Size) -> _Hidden | None:
        """Find the hidden states in a body's output.

        Args:
            output: Tensor, tuple or transformers output.
            shape: Shape [B, T] of the token ids.

        Returns:
            None if the output has no tensor [B, T, D] at the expected place.
        """
        states = getattr(output, "last_hidden_state", None)
        if states is None and isinstance(output, tuple) and output:
            states = output[0]
        if isinstance(output, torch.Tensor):
            states = output
        if not isinstance(states, torch.Tensor) or states.dim() != 3 or states.shape[:2] != shape:
            return None
        return cls(output, states)

    def block(self, row: int, start: int, stop: int) -> Any:
        """Return the output that the body would have for these positions of this row alone."""
        states_1PD = self.states_BTD[row : row + 1, start:stop]
        if isinstance(self.output, torch.Tensor):
            return states_1PD
        if isinstance(self.output, tuple) and not hasattr(self.output, "last_hidden_state"):
            return (states_1PD, *self.output[1:])
        output = copy.copy(self.output)
        output.last_hidden_state = states_1PD
        return output


class BlockwiseLogits:
    """A causal language model that returns its logits in blocks of positions."""

    def __init__(self, model: Any, *, vocab_size: int, window_tokens: int, name: Path) -> None:
        """Find the body of the model, and check the blockwise logits.

        Args:
            model: A transformers model in evaluation mode.
            vocab_size: Number of ids that can have probability; logits beyond it are cut off.
            window_tokens: Largest number of tokens of a row.
            name: Name of the model in error messages.

        Raises:
            DumpError: The model is not causal, not repeatable, or cannot run with bounded memory.
        """
        self._model = model
        self._vocab_size = vocab_size
        self._name = name
        self._arguments = forward_options(model)
        self._device = next(model.parameters()).device
        dtype = next(model.parameters()).dtype
        self._tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
        self._causal_tolerance = CAUSAL_TOLERANCE.get(dtype, CAUSAL_TOLERANCE[torch.bfloat16])
        self._body: torch.nn.Module | None = None
        self.is_ragged = False
        """Whether rows of unequal length can share a batch, padded on the right."""
        with torch.inference_mode():
            self._check(window_tokens)

    def forward(self, ids_BT: torch.Tensor) -> BlockLogits:
        """Run the body over rows.

        Args:
            ids_BT: Token ids, int64 [B, T], padded on the right.

        Returns:
            A function that computes the logits of a block of positions.
        """
        if self._body is None:
            logits_BTV = self._model(input_ids=ids_BT, **self._arguments).logits
            return lambda row, start, stop: logits_BTV[row, start:stop, : self._vocab_size]
        body, hidden = self._body, self._hidden(self._body, ids_BT)
        assert hidden is not None, "the body gave hidden states for the probe, but not for this batch"

        def block_logits(row: int, start: int, stop: int) -> torch.Tensor:
            with _replaced(body, hidden.block(row, start, stop)):
                output = self._model(input_ids=ids_BT[row : row + 1, start:stop], **self._arguments)
            logits_PV: torch.Tensor = output.logits[0, :, : self._vocab_size]
            return logits_PV

        return block_logits

    def _hidden(self, body: torch.nn.Module, ids_BT: torch.Tensor) -> _Hidden | None:
        """Run the model's forward up to the end of the body."""
        outputs: list[Any] = []

        def stop_forward(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            outputs.append(output)
            raise _BodyDone

        handle = body.register_forward_hook(stop_forward)
        try:
            with contextlib.suppress(_BodyDone):
                self._model(input_ids=ids_BT, **self._arguments)
        finally:
            handle.remove()
        return _Hidden.of(outputs[0], ids_BT.shape) if outputs else None

    def _check(self, window_tokens: int) -> None:
        """Check causality and repeatability; select a body whose blocks agree with the plain forward."""
        ids_T = probe_ids(self._model.config, self._vocab_size, min(PROBE_TOKENS, window_tokens)).to(self._device)
        plain_TV = self._plain(ids_T)
        self._require_same("two runs of the model differ", plain_TV, self._plain(ids_T), "it is not repeatable")
        for first_changed in (len(ids_T) // 2, len(ids_T) - 1):
            changed_T = ids_T.clone()
            changed_T[first_changed:] = ids_T[first_changed:].flip(0) if len(ids_T) - first_changed > 2 else ids_T[0]
            what = f"the tokens from {first_changed} on change logits before them"
            changed_TV = self._plain(changed_T)
            self._require_same(what, plain_TV[:first_changed], changed_TV[:first_changed], "it is not causal")
        for body in _bodies(self._model):
            self._body = body
            if self._blocks_agree(ids_T, plain_TV):
                break
        else:
            self._body = None
            self._require_whole_fits(window_tokens, plain_TV.shape[1])
        # The probe is too short for factors that change with the length of a row.
        changes = [change for _, change in length_changes(self._model.config.get_text_config().to_dict())]
        self.is_ragged = all(window_tokens <= change for change in changes) and self._batches_agree(ids_T, plain_TV)

    def _require_whole_fits(self, window_tokens: int, width: int) -> None:
        if 4 * width * window_tokens > WHOLE_BYTES:
            raise DumpError(
                f"{self._name}: {type(self._model).__name__} gives its logits only for whole rows, and "
                f"{window_tokens:,} tokens of {width:,} logits are more than {WHOLE_BYTES >> 30} GiB; "
                f"give --window-tokens {WHOLE_BYTES // (4 * width)} or less"
            )

    def _plain(self, ids_T: torch.Tensor) -> torch.Tensor:
        """Return the logits of the plain forward of one row, float32 [T, V]. Refuse a result that is no logits."""
        try:
            logits = self._model(input_ids=ids_T[None], **self._arguments).logits
        except (*_FORWARD_ERRORS, KeyError) as error:
            message = " ".join(str(error).split())[:200]
            raise DumpError(
                f"{self._name}: {type(self._model).__name__} fails on {len(ids_T)} ids below {self._vocab_size:,} "
                f"({type(error).__name__}: {message}); expected a causal language model that reads text alone"
            ) from error
        shape = tuple(logits.shape)
        if len(shape) != 3 or shape[:2] != (1, len(ids_T)) or shape[2] < self._vocab_size:
            raise DumpError(
                f"{self._name}: found logits of shape {shape} for {len(ids_T)} tokens, expected (1, {len(ids_T)}, "
                f"{self._vocab_size} or more): one logit per token id; use another teacher"
            )
        if not torch.isfinite(logits[..., : self._vocab_size]).all():
            raise DumpError(
                f"{self._name}: found logits that are not finite, expected finite ones: check the teacher's weights "
                "and --dtype"
            )
        return logits[0, :, : self._vocab_size].float()

    def _require_same(self, what: str, a_TV: torch.Tensor, b_TV: torch.Tensor, meaning: str) -> None:
        largest = difference(a_TV, b_TV)
        if largest > self._causal_tolerance:
            raise DumpError(
                f"{self._name}: {what}, by {largest:.2g} of their range where {self._causal_tolerance:.2g} is rounding"
                f": {meaning}; expected a causal (decoder-only) language model"
            )

    def _blocks_agree(self, ids_T: torch.Tensor, plain_TV: torch.Tensor) -> bool:
        """Return whether the blocks of the current body give the logits of the plain forward."""
        assert self._body is not None
        if self._hidden(self._body, ids_T[None]) is None:
            return False
        try:
            block_logits = self.forward(ids_T[None])
            starts = range(0, len(ids_T), PROBE_BLOCK)
            blocks = [block_logits(0, start, min(start + PROBE_BLOCK, len(ids_T))).float() for start in starts]
        except _FORWARD_ERRORS:
            return False  # the head of the model needs more than hidden states
        return difference(plain_TV, torch.cat(blocks)) <= self._tolerance

    def _batches_agree(self, ids_T: torch.Tensor, plain_TV: torch.Tensor) -> bool:
        """Return whether the logits of a short row are the same in a batch with a longer one."""
        short = len(ids_T) // 2 + 1
        ids_BT = torch.zeros(2, len(ids_T), dtype=ids_T.dtype, device=ids_T.device)
        ids_BT[0, :short], ids_BT[1] = ids_T[:short], ids_T
        try:
            block_logits = self.forward(ids_BT)
            largest = max(
                difference(plain_TV[:short], block_logits(0, 0, short).float()),
                difference(plain_TV, block_logits(1, 0, len(ids_T)).float()),
            )
        except _FORWARD_ERRORS:
            return False
        return largest <= self._tolerance


def probe_ids(config: Any, vocab_size: int, count: int) -> torch.Tensor:
    """Return ids of ordinary tokens to probe a model with, int64 [count], the same at every call.

    Args:
        config: Config of the model. Ids that it names are excluded, as those of padding or of images.
        vocab_size: Number of ids.
        count: Number of tokens.
    """
    special: set[int] = set()
    for part in (config, config.get_text_config()):
        for name, value in part.to_dict().items():
            if name.endswith(("_token_id", "_token_index")):
                special |= {v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int)}
    ordinary = torch.tensor([i for i in range(vocab_size) if i not in special])
    return ordinary[torch.randint(len(ordinary), (count,), generator=torch.Generator().manual_seed(0))]


def difference(a_TV: torch.Tensor, b_TV: torch.Tensor) -> float:
    """Return the largest difference of logits, relative to the largest distance of a logit of `a` from its row's mean.

    Args:
        a_TV: Reference, float [T, V].
        b_TV: Compared logits, float [T, V].
    """
    size = (a_TV - a_TV.mean(1, keepdim=True)).abs().max().clamp_min(1e-12)
    return float((a_TV - b_TV).abs().max() / size)


def _bodies(model: Any) -> Iterator[torch.nn.Module]:
    """Yield modules that may return the hidden states that the head reads."""
    seen = {id(model)}
    for find in (lambda: model.base_model, model.get_decoder, lambda: model.base_model.get_decoder()):
        try:
            body = find()
        except (AttributeError, NotImplementedError):
            continue
        if isinstance(body, torch.nn.Module) and id(body) not in seen:
            seen.add(id(body))
            yield body


@contextlib.contextmanager
def _replaced(body: torch.nn.Module, output: Any) -> Iterator[None]:
    """Make a module return `output` without running."""
    original = body.__dict__.get("forward")
    body.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if original is None:
            del body.forward
        else:
            body.forward = original

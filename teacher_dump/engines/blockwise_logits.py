"""A causal LM's own logits, a piece of positions at a time.

What a model does between its last hidden states and its logits differs by architecture: scales, soft caps, biases,
transforms. So nothing of it is repeated here. The body (everything below) runs once over whole rows; then the model's
own forward runs for each piece of positions with a stand-in for the body that returns the hidden states of the piece.
Memory is [piece, V], never [T, V]. Models whose body cannot be stood in for run whole.

At load, `OwnLogits` proves on a few positions that this is what the model's plain forward gives, that the model is
causal, and that two runs agree. It raises DumpError with the difference that it found.

Shapes: B rows, T positions of a row, P of a piece, D width, V vocabulary.
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
from teacher_dump.model.causal_lm import arguments

PROBE_TOKENS = 48
PROBE_PIECE = 13
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3, torch.bfloat16: 1 / 32}
"""Largest difference of logits that counts as rounding, relative to the largest distance of a logit from their mean:
8 steps of bfloat16. A logit scale of 0.9 is 0.1 off."""
CAUSAL_TOLERANCE = {torch.float64: 1e-9, torch.float32: 5e-6, torch.bfloat16: 1 / 64}
"""The same for what a change of later tokens does to earlier logits. Both runs have the same shape, so a causal model
differs only where experts get other numbers of tokens."""
WHOLE_BYTES = 2 * 2**30
"""Largest float32 block [T, V] of a model that can only run whole."""


class _BodyDone(Exception):
    """Ends a forward after the body."""


@dataclass(frozen=True, slots=True)
class _Hidden:
    """What the body returned: `output` as it is, and the hidden states in it."""

    output: Any
    states_BTD: torch.Tensor

    @classmethod
    def of(cls, output: Any, shape: torch.Size) -> _Hidden | None:
        """Return the hidden states of a body's output, None where it has none of a [B, T, D] with this [B, T]."""
        states = getattr(output, "last_hidden_state", None)
        if states is None and isinstance(output, tuple) and output:
            states = output[0]
        if isinstance(output, torch.Tensor):
            states = output
        if not isinstance(states, torch.Tensor) or states.dim() != 3 or states.shape[:2] != shape:
            return None
        return cls(output, states)

    def part(self, row: int, start: int, stop: int) -> Any:
        """Return the output as if the body had seen only these positions of this row."""
        piece = self.states_BTD[row : row + 1, start:stop]
        if isinstance(self.output, torch.Tensor):
            return piece
        if isinstance(self.output, tuple) and not hasattr(self.output, "last_hidden_state"):
            return (piece, *self.output[1:])
        output = copy.copy(self.output)
        output.last_hidden_state = piece
        return output


class OwnLogits:
    """A causal LM that gives its own logits in pieces."""

    def __init__(self, model: Any, *, vocab_size: int, window_tokens: int, name: Path) -> None:
        """Find the model's body, and prove that the pieces are right.

        Args:
            model: A transformers model in evaluation mode.
            vocab_size: Ids that can get probability; logits beyond are cut off.
            window_tokens: Most tokens of a row.
            name: What the model is called in errors.

        Raises:
            DumpError: The model is not causal, not repeatable, or not to be run in pieces of bounded size.
        """
        self._model = model
        self._vocab_size = vocab_size
        self._name = name
        self._arguments = arguments(model)
        self._device = next(model.parameters()).device
        dtype = next(model.parameters()).dtype
        self._tolerance = TOLERANCE.get(dtype, TOLERANCE[torch.bfloat16])
        self._causal_tolerance = CAUSAL_TOLERANCE.get(dtype, CAUSAL_TOLERANCE[torch.bfloat16])
        self._body: torch.nn.Module | None = None
        self.is_ragged = False
        """Whether rows of unequal length may run together, padded on the right."""
        with torch.inference_mode():
            self._prove(window_tokens)

    def rows(self, ids_BT: torch.Tensor) -> Callable[[int, int, int], torch.Tensor]:
        """Run the body over rows.

        Args:
            ids_BT: Token ids, int64 [B, T], padded on the right.

        Returns:
            A function of (row, start, stop) that returns the logits of those positions, [stop - start, vocab_size].
        """
        if self._body is None:
            logits_BTV = self._model(input_ids=ids_BT, **self._arguments).logits
            return lambda row, start, stop: logits_BTV[row, start:stop, : self._vocab_size]
        body, hidden = self._body, self._hidden(self._body, ids_BT)
        assert hidden is not None, "the body gave hidden states for the probe, but not here"

        def piece(row: int, start: int, stop: int) -> torch.Tensor:
            with _standing_in(body, hidden.part(row, start, stop)):
                output = self._model(input_ids=ids_BT[row : row + 1, start:stop], **self._arguments)
            return output.logits[0, :, : self._vocab_size]

        return piece

    def _hidden(self, body: torch.nn.Module, ids_BT: torch.Tensor) -> _Hidden | None:
        """Run the model's forward up to the end of its body."""
        outputs: list[Any] = []

        def done(module: torch.nn.Module, given: Any, output: Any) -> None:
            outputs.append(output)
            raise _BodyDone

        handle = body.register_forward_hook(done)
        try:
            with contextlib.suppress(_BodyDone):
                self._model(input_ids=ids_BT, **self._arguments)
        finally:
            handle.remove()
        return _Hidden.of(outputs[0], ids_BT.shape) if outputs else None

    def _prove(self, window_tokens: int) -> None:
        ids_T = probe_ids(self._model.config, self._vocab_size, min(PROBE_TOKENS, window_tokens)).to(self._device)
        exact_TV = self._plain(ids_T)
        self._require("two runs of the model differ", exact_TV, self._plain(ids_T), "it is not repeatable")
        for changed in (len(ids_T) // 2, len(ids_T) - 1):
            other_T = ids_T.clone()
            other_T[changed:] = ids_T[changed:].flip(0) if len(ids_T) - changed > 2 else ids_T[0]
            what = f"the tokens from {changed} on change logits before them"
            self._require(what, exact_TV[:changed], self._plain(other_T)[:changed], "it is not causal")
        for body in _bodies(self._model):
            self._body = body
            if self._pieces_agree(ids_T, exact_TV):
                break
        else:
            self._body = None
            width = exact_TV.shape[1]
            if 4 * width * window_tokens > WHOLE_BYTES:
                raise DumpError(
                    f"{self._name}: {type(self._model).__name__} gives its logits only for whole rows, and "
                    f"{window_tokens:,} tokens of {width:,} logits are more than {WHOLE_BYTES >> 30} GiB; "
                    f"give --window-tokens {WHOLE_BYTES // (4 * width)} or less"
                )
        self.is_ragged = self._batches_agree(ids_T, exact_TV)

    def _plain(self, ids_T: torch.Tensor) -> torch.Tensor:
        """Return the logits of the model's plain forward of one row, [T, V]. Raises DumpError where they are none."""
        try:
            logits = self._model(input_ids=ids_T[None], **self._arguments).logits
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            words = " ".join(str(error).split())[:200]
            raise DumpError(
                f"{self._name}: {type(self._model).__name__} fails on {len(ids_T)} ids below {self._vocab_size:,} "
                f"({type(error).__name__}: {words}); expected a causal language model that reads text alone"
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

    def _require(self, what: str, a_TV: torch.Tensor, b_TV: torch.Tensor, meaning: str) -> None:
        found = difference(a_TV, b_TV)
        if found > self._causal_tolerance:
            raise DumpError(
                f"{self._name}: {what}, by {found:.2g} of their range where {self._causal_tolerance:.2g} is rounding: "
                f"{meaning}; expected a causal (decoder-only) language model"
            )

    def _pieces_agree(self, ids_T: torch.Tensor, exact_TV: torch.Tensor) -> bool:
        assert self._body is not None
        if self._hidden(self._body, ids_T[None]) is None:
            return False
        try:
            logits = self.rows(ids_T[None])
            pieces = [logits(0, i, min(i + PROBE_PIECE, len(ids_T))).float() for i in range(0, len(ids_T), PROBE_PIECE)]
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return False  # the model's head needs more than hidden states
        return difference(exact_TV, torch.cat(pieces)) <= self._tolerance

    def _batches_agree(self, ids_T: torch.Tensor, exact_TV: torch.Tensor) -> bool:
        """Return whether a shorter row is the same beside a longer one."""
        short = len(ids_T) // 2 + 1
        ids_BT = torch.zeros(2, len(ids_T), dtype=ids_T.dtype, device=ids_T.device)
        ids_BT[0, :short], ids_BT[1] = ids_T[:short], ids_T
        try:
            logits = self.rows(ids_BT)
            found = max(
                difference(exact_TV[:short], logits(0, 0, short).float()),
                difference(exact_TV, logits(1, 0, len(ids_T)).float()),
            )
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError):
            return False
        return found <= self._tolerance


def probe_ids(config: Any, vocab_size: int, count: int) -> torch.Tensor:
    """Return ids of ordinary tokens to try a model on, int64 [count]; the same at every call.

    Args:
        config: The model's config; ids that it names, as of padding or of images, are left out.
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
    """Return the largest difference of logits, relative to the largest distance of one of `a` from its row's mean."""
    size = (a_TV - a_TV.mean(1, keepdim=True)).abs().max().clamp_min(1e-12)
    return float((a_TV - b_TV).abs().max() / size)


def _bodies(model: Any) -> Iterator[torch.nn.Module]:
    """Yield modules that may give the hidden states which the head reads."""
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
def _standing_in(body: torch.nn.Module, output: Any) -> Iterator[None]:
    """Make a module return an output without running."""
    own = body.__dict__.get("forward")
    body.forward = lambda *_, **__: output
    try:
        yield
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own

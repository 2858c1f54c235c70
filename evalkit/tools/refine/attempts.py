"""Attempts at one sample: when refinement ends, which attempt is the answer, and what a sample file records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evalkit.samples.base import Sample
from evalkit.sandbox.program_key import program_key
from evalkit.tools.refine.visible import VisibleOutcome

ENDS = {
    "passed": "the attempt passes all visible tests",
    "limit": "the number of refinements is used up",
    "repeated": "the program is that of an earlier attempt",
    "worse": "the attempt passes fewer visible tests than the one before",
    "no examples": "the prompt shows no test",
    "context": "the conversation leaves no room for another answer",
}
"""Reasons for the end of refinement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One answer of a model, and what its program did on the visible tests."""

    sample: Sample
    """The answer, as if it were the only one."""
    program: str
    """The module that was executed."""
    message: str = ""
    """What the model was told of the attempt before; "" for the first one."""
    outcome: VisibleOutcome


def end_of(attempts: Sequence[Attempt], *, num_tests: int, refinements: int, independent: bool = False) -> str:
    """Return why refinement ends after these attempts, a key of `ENDS`; "" if the model is asked again.

    Args:
        attempts: The attempts so far.
        num_tests: Number of visible tests.
        refinements: Most further attempts.
        independent: An attempt does not depend on those before, so a repeated or worse one says nothing about the next.
    """
    last = attempts[-1]
    if not num_tests:
        return "no examples"
    if last.outcome.passed == num_tests:
        return "passed"
    if independent:
        return "limit" if len(attempts) > refinements else ""
    if any(program_key(attempt.program) == program_key(last.program) for attempt in attempts[:-1]):
        return "repeated"
    if len(attempts) > 1 and last.outcome.passed < attempts[-2].outcome.passed:
        return "worse"
    return "limit" if len(attempts) > refinements else ""


def best_of(attempts: Sequence[Attempt]) -> int:
    """Return the place of the attempt that passes most visible tests; of several, the first."""
    return max(range(len(attempts)), key=lambda place: (attempts[place].outcome.passed, -place))


def refined_sample(attempts: Sequence[Attempt], *, num_tests: int, end: str, run: str) -> Sample:
    """Return the sample that stands for all attempts.

    Args:
        attempts: The attempts, in order.
        num_tests: Number of visible tests.
        end: Key of `ENDS`.
        run: Digest of the run with its refinement.
    """
    best = best_of(attempts)
    records = [_record(attempt, num_tests, is_answer=place == best) for place, attempt in enumerate(attempts)]
    records[-1]["end"] = end
    return replace(
        attempts[best].sample,
        tokens=sum(attempt.sample.tokens for attempt in attempts),
        attempts=records,
        run=run,
    )


def _record(attempt: Attempt, num_tests: int, *, is_answer: bool) -> dict[str, Any]:
    """Return what is recorded of an attempt."""
    sample, outcome = attempt.sample, attempt.outcome
    fields = {
        "message": attempt.message or None,
        "completion": sample.completion,
        "solution": sample.solution,
        "raw": sample.raw,
        "stop_reason": sample.stop_reason,
        "tokens": sample.tokens,
        "seed": sample.seed,
        "visible_passed": outcome.passed,
        "visible_tests": num_tests,
        "visible_outcome": outcome.kind if num_tests else None,
        "is_answer": is_answer,
    }
    return {key: value for key, value in fields.items() if value is not None}


def summary(samples: Sequence[Sample]) -> dict[str, Any]:
    """Return the counts of a benchmark's refined samples, as a result records them."""
    chains = [sample.attempts or [] for sample in samples]
    counts: dict[str, dict[str, int]] = {"attempts": {}, "answers": {}, "ends": dict.fromkeys(ENDS, 0)}
    for chain in chains:
        answer = next(place for place, attempt in enumerate(chain, 1) if attempt["is_answer"])
        for name, key in (("attempts", str(len(chain))), ("answers", str(answer)), ("ends", chain[-1]["end"])):
            counts[name][key] = counts[name].get(key, 0) + 1
    first = sum(chain[0]["tokens"] for chain in chains)
    return {
        "samples": len(chains),
        **{name: dict(sorted(values.items())) for name, values in counts.items()},
        "tokens": sum(sample.tokens for sample in samples),
        "tokens_of_first_attempts": first,
    }

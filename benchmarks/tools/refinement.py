"""The tables of refinement for one model and benchmark: pass@1 by method beside the tokens that it generates.

A method gives each problem two numbers: whether its answer is right, and the tokens that it cost. Methods are compared
at equal tokens on a straight line between two budgets: the number of samples is k on a part of the problems' weight and
k + 1 on the rest, such that the tokens of all problems together are equal.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from benchmarks.tools.plan import Plan
from evalkit.scoring.stats import Estimate, difference, interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One program: an attempt or a sample."""

    right: bool
    """It passes the benchmark's tests."""
    visible: int
    """Visible tests that it passes."""
    tokens: int
    kind: str = ""
    """Of an attempt: what happened on the first visible test that failed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProblemRecord:
    """All programs for one problem."""

    task_id: str
    num_tests: int
    """Number of visible tests."""
    attempts: tuple[Candidate, ...]
    end: str
    """Reason for the end of refinement."""
    samples: tuple[Candidate, ...]
    majority: dict[int, int]
    """Sample that `majority` chooses among the first so many."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """What a method gives each problem."""

    right: tuple[float, ...]
    """Probability that the answer is right, for each problem."""
    tokens: tuple[float, ...]
    """Tokens generated, for each problem."""

    @property
    def total_tokens(self) -> float:
        """Tokens for all problems."""
        return sum(self.tokens)


def read_records(plan: Plan, model: str, task: str) -> list[ProblemRecord]:
    """Return the records of the problems for which all stages are finished; none if there are not all files."""
    folder = plan.folder(model, task)
    paths = [folder / name for name in ("refined.samples.jsonl", "attempts.json", "choices.json")]
    if not all(path.exists() for path in paths):
        return []
    verdicts = json.loads(paths[1].read_bytes())["tasks"]
    choices = json.loads(paths[2].read_bytes())
    records = []
    for line in paths[0].read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        task_id = sample["task_id"]
        if task_id in choices and not any(item["outcome"] == "infra_error" for item in verdicts[task_id]):
            records.append(_record(sample, verdicts[task_id], choices[task_id]))
    return sorted(records, key=lambda record: int(record.task_id.rpartition("/")[2]))


def _record(sample: dict[str, Any], verdicts: list[dict[str, Any]], choices: dict[str, Any]) -> ProblemRecord:
    attempts = tuple(
        Candidate(
            right=verdict["passed"],
            visible=attempt["visible_passed"],
            tokens=attempt["tokens"],
            kind=attempt.get("visible_outcome", ""),
        )
        for attempt, verdict in zip(sample["attempts"], verdicts, strict=True)
    )
    samples = tuple(
        Candidate(right=right, visible=visible, tokens=tokens)
        for right, visible, tokens in zip(choices["passed"], choices["visible_passed"], choices["tokens"], strict=True)
    )
    return ProblemRecord(
        task_id=sample["task_id"],
        num_tests=sample["attempts"][0]["visible_tests"],
        attempts=attempts,
        end=sample["attempts"][-1]["end"],
        samples=samples,
        majority={int(size): index for size, index in choices["majority"].items()},
    )


def refined(records: Sequence[ProblemRecord], refinements: int, *, last_of_equals: bool = False) -> Method:
    """Return refinement with at most so many rounds; `last_of_equals` prefers the last of equally good attempts."""
    kept = [record.attempts[: refinements + 1] for record in records]
    chosen = [_best(attempts, last=last_of_equals) for attempts in kept]
    return _method([[answer] for answer in chosen], [sum(item.tokens for item in attempts) for attempts in kept])


def first_passing(records: Sequence[ProblemRecord], size: int, *, greedy: bool) -> Method:
    """Return the best of up to `size` programs by visible tests; no more are drawn after one that passes all.

    Args:
        records: The problems.
        size: Most programs of a problem; one where the prompt shows no test.
        greedy: The first program is the greedy answer.
    """
    chosen, tokens = [], []
    for record in records:
        candidates = [*record.attempts[:1], *record.samples] if greedy else list(record.samples)
        drawn: list[Candidate] = []
        for candidate in candidates[: size if record.num_tests else 1]:
            drawn.append(candidate)
            if candidate.visible == record.num_tests:
                break
        chosen.append([_best(drawn)])
        tokens.append(sum(candidate.tokens for candidate in drawn))
    return _method(chosen, tokens)


def random_sample(records: Sequence[ProblemRecord]) -> Method:
    """Return one sample, drawn at random."""
    return _method(
        [record.samples for record in records],
        [sum(item.tokens for item in record.samples) / len(record.samples) for record in records],
    )


def majority(records: Sequence[ProblemRecord], size: int) -> Method:
    """Return the choice of `majority` among the first `size` samples."""
    return _method(
        [[record.samples[record.majority[size]]] for record in records],
        [sum(item.tokens for item in record.samples[:size]) for record in records],
    )


def _best(candidates: Sequence[Candidate], *, last: bool = False) -> Candidate:
    ordered = list(reversed(candidates)) if last else list(candidates)
    return max(ordered, key=lambda candidate: candidate.visible)


def _method(chosen: Sequence[Sequence[Candidate]], tokens: Sequence[float]) -> Method:
    right = [sum(item.right for item in answers) / len(answers) for answers in chosen]
    return Method(right=tuple(right), tokens=tuple(map(float, tokens)))


def at_tokens(curve: Sequence[Method], total: float) -> Method | None:
    """Return a mixture of two neighbours on a curve whose tokens are `total`; None if the curve does not reach it."""
    for low, high in pairwise(curve):
        first, second = low.total_tokens, high.total_tokens
        if first <= total <= second and first < second:
            weight = (total - first) / (second - first)
            return Method(right=_mixed(low.right, high.right, weight), tokens=_mixed(low.tokens, high.tokens, weight))
    return None


def _mixed(low: Sequence[float], high: Sequence[float], weight: float) -> tuple[float, ...]:
    return tuple((1 - weight) * first + weight * second for first, second in zip(low, high, strict=True))


def tables(records: Sequence[ProblemRecord]) -> dict[str, Any]:
    """Return all figures of one model and benchmark."""
    most = max(len(record.attempts) for record in records) - 1
    size = min(len(record.samples) for record in records)
    curves = {
        "greedy, then samples": [first_passing(records, number, greedy=True) for number in range(1, size + 2)],
        "first passing sample": [first_passing(records, number, greedy=False) for number in range(1, size + 1)],
        "majority": [majority(records, number) for number in range(2, size + 1)],
    }
    methods = {f"refine {number}" if number else "greedy": refined(records, number) for number in range(most + 1)}
    equal: dict[str, Any] = {}
    for number in range(1, most + 1):
        name = f"refine {number}"
        total = methods[name].total_tokens
        for other, curve in curves.items():
            if (mixture := at_tokens(curve, total)) is not None:
                methods[f"{other}, tokens of {name}"] = mixture
                equal[f"{name} less {other}"] = _shown(difference(methods[name].right, mixture.right))
    methods["random sample"] = random_sample(records)
    for name, curve in curves.items():
        first = 2 if name == "majority" else 1
        methods |= {f"{name}, at most {number}": method for number, method in enumerate(curve, first) if number > 1}
    for number in range(1, most + 1):
        name = f"refine {number}"
        equal[f"{name} less random sample"] = _shown(difference(methods[name].right, methods["random sample"].right))
    greedy = methods["greedy"].right
    return {
        "problems": len(records),
        "with_visible_tests": sum(record.num_tests > 0 for record in records),
        "samples": size,
        "methods": {
            name: {
                "tokens": round(method.total_tokens / len(records), 1),
                "pass@1": _shown(interval(method.right)),
                "over greedy": _shown(difference(method.right, greedy)),
            }
            for name, method in methods.items()
        },
        "equal_tokens": equal,
        "last_of_equals": {
            f"refine {number}": _shown(
                difference(refined(records, number, last_of_equals=True).right, methods[f"refine {number}"].right)
            )
            for number in range(1, most + 1)
        },
        "oracle_of_attempts": _shown(interval([float(any(a.right for a in record.attempts)) for record in records])),
        "kinds": kinds(records),
        "ends": dict(Counter(record.end for record in records).most_common()),
    }


def kinds(records: Sequence[ProblemRecord]) -> dict[str, dict[str, int]]:
    """Return what became of the answers that were refined, by the kind of their first failure."""
    table: dict[str, Counter[str]] = {}
    for record in records:
        if len(record.attempts) < 2:
            continue
        first, answer = record.attempts[0], _best(record.attempts)
        counts = table.setdefault(first.kind, Counter())
        counts["answers"] += 1
        counts["pass visible tests"] += answer.visible == record.num_tests
        counts["mended"] += answer.right and not first.right
        counts["broken"] += first.right and not answer.right
        counts["right before"] += first.right
    return {kind: dict(counts) for kind, counts in sorted(table.items(), key=lambda item: -item[1]["answers"])}


def _shown(value: Estimate) -> dict[str, float]:
    """Return an estimate in percent, rounded."""
    return {"mean": round(100 * value.mean, 1), "low": round(100 * value.low, 1), "high": round(100 * value.high, 1)}

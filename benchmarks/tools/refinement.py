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
from pathlib import Path
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
    attempts: dict[str, tuple[Candidate, ...]]
    """Attempts by the form of the message. The first one is the same greedy answer in each."""
    ends: dict[str, str]
    """Reason for the end of refinement, by form."""
    samples: tuple[Candidate, ...]
    majority: dict[int, int]
    """Sample that `majority` chooses among the first so many."""

    @property
    def greedy(self) -> Candidate:
        """The first attempt."""
        return next(iter(self.attempts.values()))[0]


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
    choices = _read(folder / "choices.json")
    forms = {form: _chains(folder, form) for form in plan.forms}
    forms = {form: chains for form, chains in forms.items() if chains}
    if not forms:
        return []
    records = []
    for task_id, chosen in choices.items():
        if all(task_id in chains for chains in forms.values()):
            records.append(_record(task_id, {form: chains[task_id] for form, chains in forms.items()}, chosen))
    return sorted(records, key=lambda record: int(record.task_id.rpartition("/")[2]))


_Chain = tuple[list[dict[str, Any]], tuple[Candidate, ...]]
"""The attempts at a problem as the sample file has them, and as candidates."""


def _chains(folder: Path, form: str) -> dict[str, _Chain]:
    """Return the attempts at each problem that were scored; {} if a file is missing."""
    path = folder / f"{form}.samples.jsonl"
    verdicts = _read(folder / f"{form}-attempts.json").get("tasks")
    if not verdicts or not path.exists():
        return {}
    chains = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        task_id, attempts = sample["task_id"], sample["attempts"]
        if not any(item["outcome"] == "infra_error" for item in verdicts[task_id]):
            candidates = [_candidate(*pair) for pair in zip(attempts, verdicts[task_id], strict=True)]
            chains[task_id] = (attempts, tuple(candidates))
    return chains


def _candidate(attempt: dict[str, Any], verdict: dict[str, Any]) -> Candidate:
    return Candidate(
        right=verdict["passed"],
        visible=attempt["visible_passed"],
        tokens=attempt["tokens"],
        kind=attempt.get("visible_outcome", ""),
    )


def _record(task_id: str, chains: dict[str, _Chain], choices: dict[str, Any]) -> ProblemRecord:
    samples = tuple(
        Candidate(right=right, visible=visible, tokens=tokens)
        for right, visible, tokens in zip(choices["passed"], choices["visible_passed"], choices["tokens"], strict=True)
    )
    first, *_ = chains.values()
    return ProblemRecord(
        task_id=task_id,
        num_tests=first[0][0]["visible_tests"],
        attempts={form: candidates for form, (_, candidates) in chains.items()},
        ends={form: attempts[-1]["end"] for form, (attempts, _) in chains.items()},
        samples=samples,
        majority={int(size): index for size, index in choices["majority"].items()},
    )


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; {} if the file is missing."""
    value: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return value


def refined(records: Sequence[ProblemRecord], refinements: int, *, form: str, last_of_equals: bool = False) -> Method:
    """Return refinement with at most so many rounds; `last_of_equals` prefers the last of equally good attempts."""
    kept = [record.attempts[form][: refinements + 1] for record in records]
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
        candidates = [record.greedy, *record.samples] if greedy else list(record.samples)
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
    forms = list(records[0].attempts)
    size = min(len(record.samples) for record in records)
    curves = {
        "greedy, then samples": [first_passing(records, number, greedy=True) for number in range(1, size + 2)],
        "first passing sample": [first_passing(records, number, greedy=False) for number in range(1, size + 1)],
        "majority": [majority(records, number) for number in range(2, size + 1)],
    }
    greedy = refined(records, 0, form=forms[0])
    drawn = random_sample(records)
    refinements = {(form, number): refined(records, number, form=form) for form in forms for number in (1, 2)}
    methods = {"greedy": greedy} | {_name(*key): method for key, method in refinements.items()}
    equal: dict[str, Any] = {}
    for key, method in refinements.items():
        name = _name(*key)
        for other, curve in curves.items():
            if (mixture := at_tokens(curve, method.total_tokens)) is not None:
                equal[f"{name} less {other}"] = _shown(difference(method.right, mixture.right))
        equal[f"{name} less random sample"] = _shown(difference(method.right, drawn.right))
    methods["random sample"] = drawn
    for name, curve in curves.items():
        first = 2 if name == "majority" else 1
        methods |= {f"{name}, at most {number}": method for number, method in enumerate(curve, first) if number > 1}
    return {
        "problems": len(records),
        "with_visible_tests": sum(record.num_tests > 0 for record in records),
        "samples": size,
        "methods": {
            name: {
                "tokens": round(method.total_tokens / len(records), 1),
                "pass@1": _shown(interval(method.right)),
                "over greedy": _shown(difference(method.right, greedy.right)),
            }
            for name, method in methods.items()
        },
        "equal_tokens": equal,
        "forms": {form: _form_figures(records, form) for form in forms},
    }


def _name(form: str, refinements: int) -> str:
    return f"refine {refinements}, {form}"


def _form_figures(records: Sequence[ProblemRecord], form: str) -> dict[str, Any]:
    """Return the figures of one form of the message."""
    best, last = (refined(records, 2, form=form, last_of_equals=flag).right for flag in (False, True))
    any_right = [float(any(attempt.right for attempt in record.attempts[form])) for record in records]
    return {
        "last_of_equals": _shown(difference(last, best)),
        "oracle_of_attempts": _shown(interval(any_right)),
        "kinds": kinds(records, form=form),
        "ends": dict(Counter(record.ends[form] for record in records).most_common()),
    }


def kinds(records: Sequence[ProblemRecord], *, form: str) -> dict[str, dict[str, int]]:
    """Return what became of the answers that were refined, by the kind of their first failure."""
    table: dict[str, Counter[str]] = {}
    for record in records:
        attempts = record.attempts[form]
        if len(attempts) < 2:
            continue
        first, answer = attempts[0], _best(attempts)
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

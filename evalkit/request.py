"""Settings of one `evalkit score` or `evalkit write-tests`, and the callbacks that report its progress."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from evalkit.errors import EvalError
from evalkit.outputs.paths import beside
from evalkit.tools.base import require_known

if TYPE_CHECKING:
    from evalkit.tools.ask import AskRequest

REFINE_FORMS = ("failure", "conversation", "sample")
"""What a model is shown of a failed attempt (`evalkit/tools/refine/prompts.py`); the first one is the default, for the
reasons in docs/decisions/0018-a-failure-without-its-program.md."""

DEPENDENT_SETTINGS = (
    (("refine_form",), "--refine R", ("refine",)),
    (("tool_first", "tool_calls", "tool_tokens"), "--tools TOOL", ("tools",)),
    (("docs_tokens",), "--docs-top-k K", ("docs_top_k", "docs_oracle")),
)
"""Settings without effect on their own: their names, the option that they need, and the settings of which one is on."""


def without_effect(option: str, needed: str) -> str:
    """Return the message about an option that has no effect without another one."""
    return f"{option} has no effect without {needed}; add it, or leave {option} out"


def require_effects(request: Request | AskRequest) -> None:
    """Refuse settings other than the default that another setting has to switch on.

    Raises:
        EvalError: There is such a setting.
    """
    defaults = {field.name: field.default for field in fields(request)}
    for names, needed, is_on in DEPENDENT_SETTINGS:
        given = [name for name in names if getattr(request, name, None) != defaults.get(name)]
        if given and not any(getattr(request, name, False) for name in is_on):
            raise EvalError(without_effect(f"--{given[0].replace('_', '-')}", needed))


@dataclass(frozen=True, kw_only=True, slots=True)
class RetrievalSettings:
    """Settings of documentation in the prompt."""

    index: Path
    top_k: int
    """Entries for each problem."""
    tokens: int
    """Most tokens of them."""
    oracle: bool = False
    """Give the pages that the reference needs in place of hits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationRequest:
    """Settings of a generation."""

    checkpoint: str | None = None
    """A folder or hub id; None where samples are given."""
    tasks: tuple[str, ...] = ("humaneval",)
    """Names of benchmarks."""
    protocol: str | None = None
    """Name of the protocol; None for the default of each benchmark."""
    engine: str = "auto"
    max_new_tokens: int | None = None
    """Maximum length of an answer in tokens; None for the protocol's."""
    temperature: float | None = None
    top_p: float | None = None
    num_samples: int | None = None
    """Answers per problem; None for the protocol's number."""
    batch_size: int | None = None
    dtype: str = "auto"
    seed: int = 0
    limit: int | None = None
    """Use only so many problems, the first ones. Such a score is not the benchmark's score."""
    deterministic: bool = False
    data_dir: Path | None = None

    @property
    def kind(self) -> str:
        """What is written: `solutions`, `tests`, or `inputs` (functions that return inputs)."""
        return "solutions"

    @property
    def is_for_choosing(self) -> bool:
        """Whether the answers are samples to choose among, or tests to choose by: the default protocol hides tests."""
        return self.kind != "solutions"

    @property
    def is_refined(self) -> bool:
        """Whether answers are refined by the tests that the prompt shows: the default protocol shows some."""
        return False

    @property
    def retrieval(self) -> RetrievalSettings | None:
        """Documentation in the prompt; None for none."""
        return None

    @property
    def has_tools(self) -> bool:
        """Whether answers may call tools: the default protocol asks in words, for base models too."""
        return False

    def sample_path(self, task: str) -> Path:
        """Return the path of the answers that are generated for one benchmark."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True, slots=True)
class Request(GenerationRequest):
    """Settings of one `evalkit score`."""

    samples: Path | None = None
    """A file or folder of samples generated elsewhere; `-` is standard input."""
    result: Path
    """Path of the JSON result; generated samples are written beside it."""
    page: Path | None = None
    """Path of the HTML page; None for no page."""
    strict: bool = False
    """Refuse to run unless every layer of the sandbox is on."""
    workers: int | None = None
    """Programs that are executed concurrently."""
    sanitize: bool = False
    """Execute only the program in each of `samples`."""
    use_cache: bool = True
    """Read and write cached verdicts."""
    rerank: tuple[str, ...] = ()
    """Methods that choose among the samples, by tests that the same checkpoint writes; none for a score alone."""
    tools: tuple[str, ...] = ()
    """Tools that the model may call while it writes: keys of `evalkit.tools.base.TOOLS`."""
    tool_calls: int = 4
    """Most calls in one answer."""
    tool_tokens: int = 512
    """Most tokens of the results in one answer."""
    tool_first: bool = False
    """Begin each answer with a call of the first tool."""
    docs: Path | None = None
    """Index of documentation, for the tool `docs` and for the prompt."""
    docs_top_k: int = 0
    """Entries of the index that begin each prompt."""
    docs_tokens: int = 1024
    """Most tokens of these entries."""
    docs_oracle: bool = False
    """Begin each prompt with the pages that the reference needs."""
    refine: int = 0
    """Most refinements of an answer: the tests that the prompt shows are executed, and a failure is shown to the
    model."""
    refine_form: str = REFINE_FORMS[0]

    def __post_init__(self) -> None:
        if (self.checkpoint is None) == (self.samples is None):
            raise EvalError("expected either a checkpoint or --samples FILE; name one of them")
        if self.rerank and self.checkpoint is None:
            raise EvalError("--rerank is for a CHECKPOINT, which writes the tests; for samples use 'evalkit rerank'")
        if self.refine and self.checkpoint is None:
            raise EvalError("--refine is for a CHECKPOINT, which is asked again; samples are final")
        if self.tools:
            require_known(self.tools)
            if self.checkpoint is None:
                raise EvalError("--tools is for a CHECKPOINT, which calls them; samples are final")
            if self.refine or self.rerank:
                raise EvalError("--tools works neither with --refine nor with --rerank; name one of them")
        if self.refine and self.rerank:
            raise EvalError("--refine needs a prompt that shows tests, --rerank one that hides them; name one of them")
        self._check_documentation()
        require_effects(self)

    def _check_documentation(self) -> None:
        """Refuse an index that nothing uses, and uses without an index.

        Raises:
            EvalError: The settings have one of these.
        """
        uses = [
            *(["--tools docs"] if "docs" in self.tools else []),
            *(["--docs-top-k"] if self.docs_top_k else []),
            *(["--docs-oracle"] if self.docs_oracle else []),
        ]
        if self.docs is None and uses:
            raise EvalError(f"{uses[0]} needs --docs INDEX; build one with 'evalkit index-docs PACKAGE... --out INDEX'")
        if self.docs is not None and not uses:
            raise EvalError("--docs has no effect without --docs-top-k K or --tools docs; add one of them")
        if self.docs is not None and self.checkpoint is None:
            raise EvalError("--docs is for a CHECKPOINT, which reads it; samples are final")

    @property
    def retrieval(self) -> RetrievalSettings | None:
        """Documentation in the prompt; None for none."""
        if self.docs is None or not (self.docs_top_k or self.docs_oracle):
            return None
        return RetrievalSettings(
            index=self.docs, top_k=self.docs_top_k, tokens=self.docs_tokens, oracle=self.docs_oracle
        )

    @property
    def is_for_choosing(self) -> bool:
        """Whether the samples are to choose among: the default protocol hides tests."""
        return bool(self.rerank)

    def sample_path(self, task: str) -> Path:
        """Return the path of the samples that are generated for one benchmark."""
        return self._beside(task, ".samples.jsonl")

    @property
    def is_refined(self) -> bool:
        """Whether answers are refined by the tests that the prompt shows."""
        return self.refine > 0

    @property
    def has_tools(self) -> bool:
        """Whether answers may call tools."""
        return bool(self.tools)

    def attempt_path(self, task: str, number: int) -> Path:
        """Return the path of one round's answers, with `--refine`: 0 is the first attempt."""
        return self._beside(task, f".attempt{number}.jsonl")

    def test_path(self, task: str) -> Path:
        """Return the path of the tests that the checkpoint writes for one benchmark."""
        return self._beside(task, ".tests.jsonl")

    def evidence_path(self, task: str) -> Path:
        """Return the path of the evidence of one benchmark's samples."""
        return self._beside(task, ".evidence.arrow")

    def rerank_page(self, task: str) -> Path | None:
        """Return the path of the page with every problem's clusters and choices; None for no page."""
        return self._beside(task, ".rerank.html") if self.page is not None else None

    def _beside(self, task: str, suffix: str) -> Path:
        return beside(self.result, suffix if self.tasks == (task,) else f".{task}{suffix}")


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteTestsRequest(GenerationRequest):
    """Settings of one `evalkit write-tests`."""

    out: Path
    """The test file, or its name without the benchmark where there are several; `.gz` at its end compresses it."""
    inputs: bool = False
    """Write functions that return inputs, in place of tests."""

    @property
    def kind(self) -> str:
        """What is written: `tests`, or `inputs`."""
        return "inputs" if self.inputs else "tests"

    def test_path(self, task: str) -> Path:
        """Return the path of the test file of one benchmark: `tests.TASK.jsonl` where there are several."""
        if self.tasks == (task,):
            return self.out
        stem = self.out.name.removesuffix(".gz").removesuffix(".jsonl")
        return self.out.with_name(f"{stem}.{task}{self.out.name.removeprefix(stem)}")

    def sample_path(self, task: str) -> Path:
        """Return the path of the file that grows: the test file, or `tests.partial.jsonl` for `tests.jsonl.gz`."""
        path = self.test_path(task)
        if path.suffix != ".gz":
            return path
        return path.with_name(f"{path.name.removesuffix('.gz').removesuffix('.jsonl')}.partial.jsonl")


class ScoreCallbacks(Protocol):
    """Progress of a score; `evalkit/console.py` prints it."""

    def note(self, text: str) -> None:
        """Print one line."""

    def start(self, what: str, total: int) -> None:
        """Begin a phase of `total` steps."""

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        """Advance by a number of steps and generated tokens."""

    def stop(self) -> None:
        """End the phase."""

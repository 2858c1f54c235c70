"""A recipe: the models, data, budgets, arms, selectors and benchmarks of one final table, read from a TOML file.

A text may hold `{NAME}`, a place: `[places]` gives its default, and `--set NAME=VALUE` another one. So a recipe has no
path of one machine.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.final_table.reading import RecipeError, build
from evalkit.request import REFINE_FORMS

ARMS = ("sft-source", "kd-source", "sft", "kd", "kd-passed", "on-policy", "self")
"""Trained students, in the order of the table's rows."""
SELECTORS = ("majority", "codet", "srank", "verifier", "combined")
"""Methods that choose among identical samples, in the order of the table's rows."""
PUBLISHED_SCORES = ("humaneval pass@1", "humaneval pass@10", "humaneval+ pass@1", "mbpp pass@1", "mbpp pass@10")
_KINDS = ("write", "record", "train", "compare")
_RATES = (*_KINDS, *(f"{kind} {who}" for kind in _KINDS for who in ("teacher", "student")))
_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


def _at_least(least: float, default: Any = None) -> Any:
    metadata = {"least": least}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeModel:
    """Teacher or student. The shape is for the dry run of a model that has no short name and no folder."""

    title: str
    """Name in the table."""
    model: str
    """Short name, hub id or folder, as the commands take it."""
    kept_layers: int = _at_least(0, 0)
    """Layers that a student keeps, chosen on the cache of source text (`student-train --student-layers`); 0 for all."""
    parameters: int = _at_least(0, 0)
    """Weights; 0 to look the shape up."""
    layers: int = _at_least(0, 0)
    hidden_size: int = _at_least(0, 0)
    heads: int = _at_least(0, 0)
    kv_heads: int = _at_least(0, 0)
    head_dim: int = _at_least(0, 0)
    vocab_size: int = _at_least(0, 0)
    tied: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeData:
    """What the students read."""

    source: str
    """Corpus of source text, as --data takes it."""
    functions: str = ""
    """Corpus whose documented functions become prompts, as `signatures:` takes it; "" for none."""
    mbpp: str = ""
    """mbpp.jsonl; "" to fetch it."""
    benchmark_folder: str = ""
    """Folder of benchmark files; "" to fetch them."""
    decontaminate: str
    """Value of --decontaminate, for every cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeBudgets:
    """Sizes of caches and of training. All students of one kind of text take the same steps of the same size."""

    prompts: int = _at_least(1)
    """Most prompts of MBPP's training part."""
    samples: int = _at_least(2)
    """Responses of the teacher to each."""
    self_samples: int = _at_least(2)
    """Responses of the student to each, for the arm `self`."""
    num_functions: int = _at_least(0, 0)
    """Most prompts from functions, with two responses each."""
    new_tokens: int = _at_least(1)
    """Most tokens of a response."""
    source_tokens: int = _at_least(1)
    """Tokens of source text that the teacher records."""
    window_tokens: int = _at_least(8, 1024)
    steps: int = _at_least(2)
    """Steps on source text."""
    response_steps: int = _at_least(2)
    """Steps on responses, of which there are fewer."""
    batch_tokens: int = _at_least(1)
    micro_tokens: int = _at_least(1)
    learning_rate: float = _at_least(0.0)
    held_out_tokens: int = _at_least(1, 65_536)
    """Most tokens on which a student is compared with the teacher, of each cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeBenchmark:
    """One benchmark: protocols and sizes of its columns."""

    greedy: str
    """Protocol of the greedy answer, and of refinement."""
    sampled: str
    """Protocol of the samples. It shows no tests, so that selectors may use tests that the model wrote."""
    tests: str
    """Protocol of these tests."""
    problems: int = _at_least(0, 0)
    """Only so many problems for the greedy answer; 0 for all."""
    sampled_problems: int = _at_least(0, 0)
    """The same for samples, tests and refinement."""
    plus: str = ""
    """Benchmark with further tests for the same greedy answers; "" for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeSelection:
    """Samples, and what chooses among them."""

    selectors: tuple[str, ...] = field(metadata={"choices": SELECTORS})
    samples: int = _at_least(0)
    """Samples of each problem, at least ten for pass@10; 0 for greedy answers only, and no selectors."""
    texts: int = _at_least(1)
    """Texts of tests of each problem."""
    new_tokens: int = _at_least(1)
    """Most tokens of an answer."""
    test_tokens: int = _at_least(1)
    """Most tokens of a text of tests."""
    verifier_samples: int = _at_least(1, 10)
    """Samples and texts of each task that the verifier learns from: the teacher's, on MBPP's training part."""
    verifier_problems: int = _at_least(0, 0)
    """Only so many of these tasks, and of the tasks that choose the verifier; 0 for all."""
    refinements: int = _at_least(0, 0)
    """Most refinements of an answer; 0 for none."""
    refinement_form: str = field(default=REFINE_FORMS[0], metadata={"choices": REFINE_FORMS})
    """Form of its message, as --refine-form takes it."""
    refinement_samples: int = _at_least(2, 4)
    """Samples that refinement is compared with at equal tokens."""
    validation_samples: int = _at_least(1, 4)
    """Answers to each problem of MBPP's validation part, by which the best student is chosen; one is greedy."""
    validation_problems: int = _at_least(0, 0)
    """Only so many of these problems; 0 for all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecipeRates:
    """Rates for the dry run, for work of which no stage is finished. Each has its source in `sources`."""

    machine: str = ""
    """GPUs such as 8xH100: rates come from the arithmetic of `teacher-dump --plan`. "" for the machine of `rates`."""
    training_share: float = _at_least(0.0, 0.4)
    """Share of a GPU's peak that training reaches."""
    tokens_per_s: dict[str, float] = field(default_factory=dict, metadata={"choices": _RATES})
    """By kind of work, or kind and model: `train`, `write teacher`."""
    programs_per_s: float = _at_least(0.0, 0.0)
    """Programs that the sandbox executes."""
    source: str = ""
    """Where the rates come from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """Published scores of a model that is not run here, in percent."""

    title: str
    source: str
    scores: dict[str, float] = field(metadata={"choices": PUBLISHED_SCORES})
    """By column. pass@1 is greedy, pass@10 from samples; `source` says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """All settings of one final table."""

    title: str
    teacher: RecipeModel
    student: RecipeModel
    data: RecipeData
    budgets: RecipeBudgets
    arms: tuple[str, ...] = field(metadata={"choices": ARMS})
    seeds: tuple[int, ...]
    benchmarks: dict[str, RecipeBenchmark] = field(metadata={"choices": ("humaneval", "mbpp")})
    selection: RecipeSelection
    rates: RecipeRates = field(default_factory=RecipeRates)
    published: tuple[PublishedRow, ...] = ()
    engine: str = field(default="auto", metadata={"choices": ("auto", "vllm", "transformers")})
    """Of writing, recording and scoring."""
    batch_size: int = _at_least(0, 0)
    """Answers that evalkit generates at a time; 0 for the engine's choice."""


def read_recipe(path: Path, places: Mapping[str, str] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        path: The TOML file.
        places: Values of --set.

    Raises:
        RecipeError: The file is not readable, or a key or value is not expected; the message names its path.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); name a recipe, such as those in recipes/"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: is not TOML ({error})") from None
    defaults = build(dict[str, str], content.pop("places", {}), f"{path.name}: places")
    given = dict(places or {})
    if unknown := sorted(set(given) - set(defaults)):
        raise RecipeError(f"--set {unknown[0]}: {path.name} has no such place; expected one of {', '.join(defaults)}")
    recipe: Recipe = build(Recipe, _filled(content, defaults | given, path.name), path.name)
    _check(recipe, path.name)
    return recipe


def _filled(value: Any, places: Mapping[str, str], path: str) -> Any:
    """Return a value with its places filled in."""
    if isinstance(value, dict):
        return {key: _filled(item, places, f"{path}: {key}") for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, places, path) for item in value]
    if not isinstance(value, str):
        return value
    if missing := [name for name in _PLACE.findall(value) if name not in places]:
        raise RecipeError(f"{path}: names the place {{{missing[0]}}}, which [places] does not have; add its default")
    return _PLACE.sub(lambda match: places[match[1]], value)


def _check(recipe: Recipe, name: str) -> None:
    """Check what one key alone does not say.

    Raises:
        RecipeError: Two keys contradict each other.
    """
    if not recipe.seeds or len(set(recipe.seeds)) < len(recipe.seeds):
        raise RecipeError(f"{name}: seeds: found {list(recipe.seeds)}, expected at least one, each once")
    if "mbpp" not in recipe.benchmarks:
        raise RecipeError(f"{name}: benchmarks.mbpp: is missing; its protocols are also those of MBPP's other parts")
    if recipe.budgets.micro_tokens > recipe.budgets.batch_tokens:
        raise RecipeError(
            f"{name}: budgets.micro_tokens: found {recipe.budgets.micro_tokens}, expected at most "
            f"budgets.batch_tokens, {recipe.budgets.batch_tokens}"
        )
    for task, benchmark in recipe.benchmarks.items():
        for key in ("greedy", "sampled", "tests"):
            _check_protocol(task, key, getattr(benchmark, key), name)
    if bool(recipe.data.functions) != bool(recipe.budgets.num_functions):
        raise RecipeError(f"{name}: data.functions and budgets.num_functions: expected both or neither")
    if (samples := recipe.selection.samples) < 10 and (samples or recipe.selection.selectors):
        expected = "at least 10" if recipe.selection.selectors else "0 or at least 10"
        raise RecipeError(f"{name}: selection.samples: found {samples}, expected {expected}")
    if recipe.student.kept_layers and not {"sft-source", "kd-source"} & set(recipe.arms):
        raise RecipeError(f"{name}: student.kept_layers: needs source text; add sft-source or kd-source to arms")
    wanted = [benchmark for benchmark in recipe.benchmarks if benchmark not in recipe.data.decontaminate]
    if wanted:
        raise RecipeError(f"{name}: data.decontaminate: does not name {wanted[0]}, which the table scores; add it")


def _check_protocol(task: str, key: str, protocol: str, name: str) -> None:
    """Check that a protocol is known, covers its benchmark, and fits its column.

    Raises:
        RecipeError: It is not.
    """
    from evalkit.tasks.presets import PROTOCOLS

    kind = "tests" if key == "tests" else "solutions"
    fitting = [
        item.name
        for item in PROTOCOLS
        if task in item.tasks and item.kind == kind and (key != "sampled" or not item.visible_tests)
    ]
    if protocol not in fitting:
        raise RecipeError(f"{name}: benchmarks.{task}.{key}: found {protocol!r}, expected of {', '.join(fitting)}")

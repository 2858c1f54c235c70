"""Sources of inputs. `--inputs` chooses among them by name.

- `tests`: the calls that model-written tests make.
- `examples`: the calls that the prompt shows: examples in docstrings, and asserts where the protocol shows them.
- `mutation`: changed calls of the two sources above.
- `generator`: calls that functions written by the model return, executed in the sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from evalkit.errors import EvalError
from evalkit.rerank.inputs.mutation import call_of, mutated_calls
from evalkit.sandbox.execute import CallResult

INPUT_SOURCES = ("tests", "examples", "mutation", "generator")

GENERATOR_CALL = "generate_inputs()"
"""Call of a model-written generator. It returns a list with a tuple of arguments for each input."""

_MOST_GENERATED = 50
"""Inputs that count of one generator."""


def require_sources(names: Sequence[str]) -> None:
    """Check the names of sources.

    Raises:
        EvalError: A name is unknown, or there is none.
    """
    for name in names:
        if name not in INPUT_SOURCES:
            raise EvalError(f"--inputs: {name!r} is unknown, expected some of {', '.join(INPUT_SOURCES)}")
    if not names:
        raise EvalError(f"--inputs: no source is named, expected some of {', '.join(INPUT_SOURCES)}")


def combine(
    sources: Sequence[str],
    *,
    tests: Iterable[str],
    examples: Iterable[str],
    generated: Iterable[str],
    num_mutations: int,
    seed: str,
) -> dict[str, str]:
    """Return the source of each distinct call, in the order of `INPUT_SOURCES`.

    Args:
        sources: Names of the sources to use.
        tests: Calls of the model-written tests.
        examples: Calls that the prompt shows.
        generated: Calls of generators.
        num_mutations: Most calls from mutation.
        seed: Seed of the mutation.
    """
    tests, examples = list(tests), list(examples)
    mutated = mutated_calls([*tests, *examples], number=num_mutations, seed=seed) if "mutation" in sources else ()
    inputs: dict[str, str] = {}
    for name, calls in zip(INPUT_SOURCES, (tests, examples, mutated, generated), strict=True):
        if name in sources:
            inputs.update((call, name) for call in calls if call not in inputs)
    return inputs


def generated_calls(result: CallResult, entry_point: str) -> tuple[str, ...]:
    """Return the calls of one generator.

    Args:
        result: The result of `GENERATOR_CALL`.
        entry_point: Name of the function under test.

    Returns:
        Distinct calls; none if the generator failed or returned something else than lists of arguments.
    """
    try:
        rows: Any = result.value()
    except ValueError:
        return ()
    if not isinstance(rows, list | tuple):
        return ()
    calls = [call_of(entry_point, row, {}) for row in rows[:_MOST_GENERATED] if isinstance(row, list | tuple)]
    return tuple(dict.fromkeys(call for call in calls if call is not None))

"""Evidence: the outputs of each distinct program and the model-written tests that it passes.

Evidence is computed once (`evalkit/rerank/collect.py`) and stored (`evalkit/rerank/store.py`). Selectors are pure
functions of it: they execute nothing, and they cannot see the benchmark's own tests or verdicts.

Axes: N samples, P distinct programs, I inputs (call expressions), T distinct model-written tests, E visible examples of
the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

LIMIT = -(1 << 40)
"""Output code of the first program's limits; those of the others are below it."""
FAILURE = 2 * LIMIT
"""Output code of the first program's calls that the machine failed to execute; those of the others are below it."""

NONE_CODE = 0
"""Code of the value None in `TaskEvidence.output_PI`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTest:
    """One distinct test that a model wrote for a problem."""

    source: str
    """The assert statement."""
    times_written: int
    """How often it is among the first valid asserts of the generated texts."""
    input: int | None
    """Index of the expression that it checks, among `TaskEvidence.inputs`; None for an opaque test, and where the
    expression is not among the inputs."""
    names_value: bool = True
    """It says which value `input` has to have: an equality with an expression that needs no program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskEvidence:
    """Evidence of one problem."""

    task_id: str
    programs: tuple[str, ...]
    """[P] Distinct programs, in the order of their first sample."""
    program_N: Int32
    """[N] Index of each sample's program."""
    inputs: tuple[str, ...]
    """[I] Distinct expressions: calls of an entry point, and calls inside such as `sorted(f(1))`."""
    input_sources: tuple[str, ...]
    """[I] Source of each input: `tests`, `examples`, `mutation` or `generator`."""
    output_PI: Int64
    """[P, I] Equal codes are equal outputs: values from 0 up, exceptions below 0 by the name of their type. The value
    None is `NONE_CODE`. A call that ran into a limit, or that the machine failed to execute, has a code that no other
    program shares."""
    is_value_PI: Bool
    """[P, I] Whether the call returned a value."""
    tests: tuple[ModelTest, ...]
    """[T] Distinct tests."""
    passed_PT: Bool
    """[P, T] Whether the program passes the test."""
    example_passed_PE: Bool
    """[P, E] Whether the program passes each example that the prompt shows."""
    texts: tuple[tuple[str, ...], ...] = field(default=(), repr=False)
    """[P][I] One line for people: the value, the exception or the limit."""
    question: str = field(default="", repr=False)
    """What the model is asked: the prompt, or the description where the benchmark has no prompt. It holds no test."""
    log_prob_N: Float64 | None = field(default=None, repr=False)
    """[N] Mean log-probability of each sample's tokens, in nats; NaN where the sample file names none, None where it
    names none at all."""

    @property
    def count_P(self) -> Int64:
        """[P] Number of samples of each program."""
        return np.bincount(self.program_N, minlength=len(self.programs)).astype(np.int64)

    @property
    def times_T(self) -> Int64:
        """[T] How often each test was written."""
        return np.array([test.times_written for test in self.tests], dtype=np.int64)

    @property
    def is_limit_PI(self) -> Bool:
        """[P, I] Whether the call ran into a limit."""
        return (self.output_PI <= LIMIT) & ~self.is_failure_PI

    @property
    def is_failure_PI(self) -> Bool:
        """[P, I] Whether the machine failed to execute the call, which says nothing of the program."""
        return self.output_PI <= FAILURE

    def samples_of(self, programs: Bool) -> tuple[int, ...]:
        """Return the indices of the samples whose program is marked.

        Args:
            programs: [P] Marks of programs.
        """
        return tuple(np.flatnonzero(programs[self.program_N]).tolist())

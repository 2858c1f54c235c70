"""Sources of inputs: names, order and generators."""

from __future__ import annotations

import pytest

from evalkit.errors import EvalError
from evalkit.rerank.inputs.sources import INPUT_SOURCES, combine, generated_calls, require_sources
from evalkit.sandbox.execute import CallResult
from evalkit.sandbox.wire.values import encode


def combined(*sources: str) -> dict[str, str]:
    return combine(
        sources,
        tests=["f(1)", "f(2)"],
        examples=["f(2)", "f(3)"],
        generated=["f(3)", "f(99)"],
        num_mutations=3,
        seed="a",
    )


def test_each_call_has_the_first_source_that_makes_it() -> None:
    inputs = combined(*INPUT_SOURCES)
    assert list(inputs.items())[:3] == [("f(1)", "tests"), ("f(2)", "tests"), ("f(3)", "examples")]
    assert list(inputs.values())[3:] == ["mutation"] * 3 + ["generator"]
    assert combined("examples") == {"f(2)": "examples", "f(3)": "examples"}
    assert set(combined("mutation").values()) == {"mutation"}


@pytest.mark.parametrize(("names", "error"), [(["tests", "x"], "'x' is unknown"), ([], "no source is named")])
def test_an_unknown_source_is_an_error(names: list[str], error: str) -> None:
    with pytest.raises(EvalError, match=f"--inputs: {error}, expected some of tests, examples, mutation, generator"):
        require_sources(names)


def test_a_generator_gives_calls_or_nothing() -> None:
    rows = [(1, "a"), [2, "b"], (1, "a"), 3, (float("inf"), "c")]
    result = CallResult(outcome="value", form=encode(rows), has_form=True)
    assert generated_calls(result, "f") == ("f(1, 'a')", "f(2, 'b')")
    assert generated_calls(CallResult(outcome="value", form=encode(5), has_form=True), "f") == ()
    assert generated_calls(CallResult(outcome="timeout_cpu"), "f") == ()
    many = CallResult(outcome="value", form=encode([(i,) for i in range(500)]), has_form=True)
    assert len(generated_calls(many, "f")) == 50

"""Splitting of asserts: forms, and comparisons in the host against Python's own on the same values."""

from __future__ import annotations

import itertools
import math
import random
import warnings
from typing import Any

import pytest

from evalkit.rerank.call_output import CallOutput, call_output
from evalkit.rerank.call_tests import SplitTest, split_test
from evalkit.sandbox.execute import CallResult, ProgramCalls, execute_calls
from evalkit.sandbox.pool import Pool
from evalkit.sandbox.wire.canonical import value_digest
from evalkit.sandbox.wire.values import encode

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -3, 0.5, 1.0, 0.1 + 0.2, 1e300, "", "a", "ab", [], [1], [1.0, True], (1,), (), {},
    {"a": [1]}, {1, 2}, {2: None}, b"a", 10**30, [None], [[1], (2,)], -0.0,
]  # fmt: skip
FORMS = [
    "f(1) == {0!r}", "{0!r} == f(1)", "f(1) != {0!r}", "{0!r} != f(1)", "f(1)", "not f(1)", "f(1) is {0!r}",
    "f(1) is not {0!r}", "f(1) in [{0!r}, 2]", "f(1) not in ({0!r}, 'a')", "(f(1) == {0!r})", "f(1) == {0!r}, 'text'",
]  # fmt: skip
NUMBER_FORMS = [
    "f(1) < {0!r}", "f(1) <= {0!r}", "{0!r} > f(1)", "{0!r} >= f(1)", "f(1) > {0!r}", "math.isclose(f(1), {0!r})",
    "math.isclose({0!r}, f(1), rel_tol=1e-3)", "isclose(f(1), {0!r}, abs_tol=0.6)", "abs(f(1) - {0!r}) < 0.6",
    "abs({0!r} - f(1)) <= 1", "0.6 > abs(f(1) - {0!r})", "1 >= math.fabs(f(1) - {0!r})",
]  # fmt: skip


def output(value: Any) -> CallOutput:
    form = encode(value)
    return call_output(
        CallResult(outcome="value", digest=value_digest(form), form=form, has_form=True, text=repr(value)[:120])
    )


def passes_in_python(source: str, value: Any) -> bool:
    names = {"f": lambda argument: value, "math": math, "isclose": math.isclose}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(source, names)
    except Exception:
        return False
    return True


def is_identity_of_objects(form: str, literal: Any) -> bool:
    return " is " in form and literal is not None and not isinstance(literal, bool)


@pytest.mark.parametrize("form", FORMS + NUMBER_FORMS)
def test_the_host_compares_as_python_does(form: str) -> None:
    literals = [value for value in VALUES if isinstance(value, int | float)] if form in NUMBER_FORMS else VALUES
    for literal, value in itertools.product(literals, VALUES):
        source = f"assert {form.format(literal)}"
        test = split_test(source, ("f",))
        if is_identity_of_objects(form, literal):
            assert test.is_opaque, source
        else:
            assert (test.evaluated, test.is_call, test.comparison != "") == ("f(1)", True, True), source
            assert test.passes(output(value)) == passes_in_python(source, value), (source, value)


def random_value(generator: random.Random, depth: int = 0) -> Any:
    kind = generator.randrange(5 if depth > 2 else 9)
    if kind < 5:
        return generator.choice(
            [None, True, generator.randint(-2, 2), generator.choice([0.5, 1.0, 2.5]), "ab"[: kind % 3]]
        )
    items = [random_value(generator, depth + 1) for _ in range(generator.randrange(3))]
    if kind == 5:
        return items
    if kind == 6:
        return tuple(items)
    if kind == 7:
        return {"ab"[place % 2]: item for place, item in enumerate(items)}
    return {item for item in items if isinstance(item, int | float | str)}


@pytest.mark.slow
def test_equality_of_nested_values_is_that_of_python() -> None:
    generator = random.Random(1)
    values = [random_value(generator) for _ in range(150)]
    num_equal = 0
    for literal, value in itertools.product(values, values):
        source = f"assert f(1) == {literal!r}"
        passed = split_test(source, ("f",)).passes(output(value))
        assert passed == (value == literal), (source, value)
        num_equal += passed
    assert num_equal > 200


@pytest.mark.parametrize(
    ("source", "evaluated"),
    [
        ("assert f( 1,b = 'x' )==2", "f(1, b='x')"),
        ("assert sorted(f(1)) == [1]", "sorted(f(1))"),
        ("assert round(f(1), 2) == 0.5", "round(f(1), 2)"),
        ("assert f(1)[0] == 2", "f(1)[0]"),
        ("assert len(set(f(1))) > 2", "len(set(f(1)))"),
    ],
)
def test_expressions_around_a_call_are_compared_in_the_host(source: str, evaluated: str) -> None:
    test = split_test(source, ("f",))
    assert (test.evaluated, test.is_opaque, test.is_call) == (evaluated, False, evaluated.startswith("f(1, b"))


@pytest.mark.parametrize(
    "source",
    [
        "assert any(x for x in f(1))",
        "assert f(1) == 2 and f(2) == 3",
        "assert 1 < f(1) < 3",
        "assert f(1) in 'text'",
        "assert f(1) == 2; f(2)",
        "assert f(1) is 5",
        "assert f(1).real == 2",
        "assert isinstance(f(1), int)",
        "assert f is not None",
        "assert (f(1) == 2) == True",
        "assert math.isclose(f(1), 2, rel_tol=x)",
        "assert f(1) < 'a'",
        "assert (f(1), 'text')",
        "assert True # f",
    ],
)
def test_other_tests_are_opaque(source: str) -> None:
    test = split_test(source, ("f",))
    assert test.is_opaque
    assert test.passes(CallOutput("value"))
    assert not test.passes(CallOutput("exception"))


def test_an_expected_expression_is_evaluated_with_or_without_the_program() -> None:
    test = split_test("assert f(1) == sorted([2, 1])", ("f",))
    assert (test.evaluated, test.other, test.other_needs_program) == ("f(1)", "sorted([2, 1])", False)
    assert test.passes(output([1, 2]), output([1, 2]))
    assert not test.passes(output([1, 2]), output([2, 1]))
    assert not test.passes(output([1, 2]), CallOutput("exception"))
    pair = split_test("assert f(1) == f(2)", ("f",))
    assert (pair.evaluated, pair.other, pair.other_needs_program, pair.other_is_call) == ("f(1)", "f(2)", True, True)
    assert not split_test("assert f(1) != f(2)", ("f",)).passes(output(1), CallOutput("exception"))


def test_a_failed_call_passes_no_test() -> None:
    for form in FORMS + NUMBER_FORMS:
        test = split_test(f"assert {form.format(1)}", ("f",))
        assert not test.passes(CallOutput("exception", exception="ValueError"))
        assert not test.passes(CallOutput("timeout_cpu"))


HOSTILE = """
class Equal(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __lt__(self, other): return True
    def __gt__(self, other): return True
    def __hash__(self): return 0
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __contains__(self, item): return True
    def __getattr__(self, name): return self
    def __call__(self, *args): return self
    def __rsub__(self, other): return 0
    def __sub__(self, other): return 0
    def __round__(self, digits=0): return self
class Other:
    __eq__ = lambda self, other: True
    __bool__ = lambda self: True
    __class__ = int
def f(x): return Equal(77)
def g(x): return Other()
def h(x): return [Equal(77)]
"""


def passed_by(pool: Pool, program: str, tests: list[SplitTest]) -> list[str]:
    """Return the sources of the tests that a program passes."""
    calls = tuple(dict.fromkeys(call for test in tests for call in (test.calls or (test.evaluated,))))
    (result,) = execute_calls([ProgramCalls(program=program, calls=calls)], pool=pool)
    outputs = {call: call_output(answer) for call, answer in zip(calls, result.calls, strict=True)}
    statements = [test.statements(outputs) or "1 / 0" if test.calls else "0" for test in tests]
    (alone,) = execute_calls([ProgramCalls(program="", calls=tuple(statements))], pool=pool)
    return [
        test.source
        for test, answer in zip(tests, alone.calls, strict=True)
        if (answer.outcome == "value" if test.calls else test.passes(outputs[test.evaluated], output([5])))
    ]


def test_objects_that_equal_everything_pass_no_test_of_their_value(pool: Pool) -> None:
    sources = ["{0}(1) == 5", "5 == {0}(1)", "{0}(1) in [5]", "abs({0}(1) - 5) < 1", "{0}(1) == [5]"]
    sources += ["{0}(1) == 5 and {0}(2) == 6", "any(x == 5 for x in [{0}(1)])", "({0}(1) == 5) == True"]
    sources += ["{0}(1) is 5", "5 in {0}(1)", "{0}(1)[0] == 5", "round({0}(1), 2) == 5", "set({0}(1)) == set([5])"]
    sources += ["[{0}(1)] == [5]", "sorted({0}(1)) == [5]", "all({0}(x) == 5 for x in [1])"]
    tests = [split_test(f"assert {source.format(name)}", (name,)) for source in sources for name in "fgh"]
    assert passed_by(pool, HOSTILE, tests) == []


HONEST = """
def f(x): return [x, x + 1]
def g(x): return iter({x: 'a'})
def h(x): return float(x)
def e(x): raise KeyError(x)
"""


def test_opaque_tests_pass_for_honest_programs(pool: Pool) -> None:
    sources = ["any(x == 2 for x in f(1))", "f(1) == [1, 2] and f(2) == [2, 3]", "isinstance(f(1), list)"]
    sources += ["all(next(g(x)) == x for x in [3])", "h(1).is_integer()", "all(len(list(g(x))) == 1 for x in (1, 2))"]
    sources += ["f(1) != 2 or e(1)", "f(1).append(5) is None and f(1) == [1, 2]", "0 < h(2) < 3\nfor _ in 'ab': h(1)"]
    tests = [split_test(f"assert {source}", ("f", "g", "h", "e")) for source in sources]
    tests.append(split_test("assert True\ntry:\n    e(1)\n    assert False\nexcept KeyError:\n    pass", ("e",)))
    assert all(test.is_opaque for test in tests)
    assert sum(bool(test.calls) for test in tests) == len(tests) - 2
    assert passed_by(pool, HONEST, tests) == [test.source for test in tests]


def test_a_value_without_a_short_literal_passes_no_opaque_test() -> None:
    test = split_test("assert 0 < len(f(1)) < 900", ("f",))
    assert test.calls == ("f(1)",)
    assert test.statements({"f(1)": output("x" * 500)}) is None
    assert test.statements({"f(1)": CallOutput("timeout_cpu")}) is None
    assert test.statements({"f(1)": CallOutput("value", "0" * 32, text="1")}) is None


def test_huge_sources_are_opaque_or_split_but_never_an_error() -> None:
    for source in (
        "assert f(" + "(" * 500 + ")" * 500 + ") == 1",
        "assert f(1) == " + "-" * 20000 + "1",
        "assert f(\0)",
    ):
        assert isinstance(split_test(source, ("f",)), SplitTest)

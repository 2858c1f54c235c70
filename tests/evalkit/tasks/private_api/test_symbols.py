"""Tests of the search for a library's names."""

from __future__ import annotations

from tests.evalkit.tasks.private_api.toy_library import toy_symbols


def test_names_that_the_library_defines_are_found() -> None:
    symbols = toy_symbols()
    assert symbols.public["tools"] >= {"split", "Bag"}
    assert symbols.classes == {"Bag"}
    assert symbols.members == {"total_count", "add_one", "EMPTY", "FULL"}
    assert symbols.arguments == {"text", "sep", "most_parts", "key", "step_size", "default", "word", "total_count"}
    assert symbols.bound["other"] >= {"cut", "Bag", "words_of", "text", "key"}


def test_names_from_elsewhere_stay() -> None:
    symbols = toy_symbols()
    assert not symbols.all & {"floor", "self", "kwargs", "get", "dict", "__repr__", "sorted"}
    assert symbols.method_arguments["get"] == {"key", "default"}

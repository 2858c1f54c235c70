"""Type-aware mutation of calls: other literals of the same types.

Follows the mutation of EvalPlus (arXiv 2305.01210, table 1): numbers move by one, a text loses, repeats or changes a
part, a container loses, repeats, inserts or changes an item. One argument of a call changes at a time, and changed
calls are changed again.
"""

from __future__ import annotations

import ast
import random
import warnings
from collections.abc import Callable, Iterable
from typing import Any

_LONGEST = 2000
"""Longest call, in characters."""
_TRIES = 10
"""Attempts for each new call."""
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789"


def mutated_calls(calls: Iterable[str], *, number: int, seed: str) -> tuple[str, ...]:
    """Return up to `number` new calls like `calls`.

    Args:
        calls: Normalised sources of calls. Those with arguments that are no literals are not changed.
        number: Most calls to return.
        seed: Equal seeds and calls give equal results.
    """
    known = dict.fromkeys(calls)
    sources = [parsed for call in known if (parsed := _parse(call)) is not None]
    generator = random.Random(seed)
    mutated: list[str] = []
    for _ in range(_TRIES * number if sources else 0):
        if len(mutated) >= number:
            break
        name, arguments, keywords = generator.choice(sources)
        values = [*arguments, *keywords.values()]
        place = generator.randrange(len(values))
        values[place] = _mutate(values[place], generator)
        changed = values[: len(arguments)], dict(zip(keywords, values[len(arguments) :], strict=True))
        call = call_of(name, *changed)
        if call is not None and call not in known:
            known[call] = None
            mutated.append(call)
            sources.append((name, *changed))
    return tuple(mutated)


def call_of(name: str, arguments: Iterable[Any], keywords: dict[str, Any]) -> str | None:
    """Return the normalised source of a call; None if it is too long or an argument has no literal form."""
    try:
        texts = [repr(value) for value in arguments] + [f"{key}={value!r}" for key, value in keywords.items()]
        source = f"{name}({', '.join(texts)})"
        if len(source) > _LONGEST:
            return None
        node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    assert isinstance(node, ast.Call)
    return ast.unparse(node) if _literals(node) is not None else None


def _parse(call: str) -> tuple[str, list[Any], dict[str, Any]] | None:
    """Return name, arguments and keyword arguments of a call of literals with at least one argument."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            node = ast.parse(call, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not (node.args or node.keywords):
        return None
    literals = _literals(node)
    return (node.func.id, *literals) if literals is not None else None


def _literals(node: ast.Call) -> tuple[list[Any], dict[str, Any]] | None:
    try:
        arguments = [ast.literal_eval(value) for value in node.args]
        keywords = {str(item.arg): ast.literal_eval(item.value) for item in node.keywords if item.arg is not None}
    except (ValueError, TypeError, RecursionError, MemoryError, SyntaxError):
        return None
    return (arguments, keywords) if len(keywords) == len(node.keywords) else None


def _mutate(value: Any, generator: random.Random) -> Any:
    mutate = _MUTATIONS.get(type(value))
    return value if mutate is None else mutate(value, generator)


def _mutate_number(value: Any, generator: random.Random) -> Any:
    return value + generator.choice((-1, 1))


def _mutate_text(value: str, generator: random.Random) -> str:
    if not value:
        return generator.choice(_LETTERS)
    start = generator.randrange(len(value))
    end = generator.randint(start + 1, len(value))
    part, other = value[start:end], generator.choice(_LETTERS)
    kinds = ("", part + part, part.swapcase(), part[::-1], other, part + other)  # remove, repeat, change, insert
    return value[:start] + generator.choice(kinds) + value[end:]


def _mutate_items(items: list[Any], generator: random.Random) -> list[Any]:
    if not items:
        return items
    place = generator.randrange(len(items))
    item = items[place]
    other = _mutate(item, generator)
    changed: list[Any] = generator.choice(([], [item, item], [other], [item, other]))
    return [*items[:place], *changed, *items[place + 1 :]]


def _mutate_dict(value: dict[Any, Any], generator: random.Random) -> dict[Any, Any]:
    if not value:
        return value
    key = generator.choice(list(value))
    rest = {other: item for other, item in value.items() if other != key}
    new_key, new_item = _mutate(key, generator), _mutate(value[key], generator)
    kinds: tuple[dict[Any, Any], ...] = (
        {},
        {key: new_item},
        {new_key: value[key]},
        {key: value[key], new_key: new_item},
    )
    return rest | generator.choice(kinds)


_MUTATIONS: dict[type, Callable[[Any, random.Random], Any]] = {
    bool: lambda value, generator: generator.choice((True, False)),
    int: _mutate_number,
    float: _mutate_number,
    complex: _mutate_number,
    str: _mutate_text,
    bytes: lambda value, generator: _mutate_text(value.decode("latin-1"), generator).encode("latin-1", "replace"),
    list: _mutate_items,
    tuple: lambda value, generator: tuple(_mutate_items([*value], generator)),
    set: lambda value, generator: set(_mutate_items(sorted(value, key=repr), generator)),
    dict: _mutate_dict,
}
"""Mutations by exact type. Values of other types, such as None, stay."""

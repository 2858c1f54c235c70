"""A small library in one text per module, with what makes renaming hard."""

from __future__ import annotations

import ast

from evalkit.tasks.private_api.symbols import Symbols, find_symbols
from evalkit.tasks.private_api.transform import Renaming
from evalkit.tasks.private_api.words import Words

TOOLS = '''"""Tools of ``toylib``, see https://example.org/toylib."""
from math import floor
__all__ = ["split", "Bag"]

def split(text, sep=None, **kwargs):
    """Splits *text* at *sep*, like :meth:`str.split` but better; a text that is split stays.

    Args:
        text (str): The text.
        sep (str): A text that separates.

    >>> split("a-b", sep="-")
    ['a', 'b']
    """
    limit = kwargs.pop("most_parts", -1)
    return text.split(sep, limit)

class Bag(dict):
    """A ``Bag`` counts with :meth:`Bag.add_one`.

    >>> Bag().add_one("x", step_size=2)
    Bag({'x': 2}, total_count=2)
    """
    __slots__ = ("total_count",)
    EMPTY, FULL = 0, 1

    def __init__(self, total_count=EMPTY):
        self.total_count = total_count

    def copy(self):
        return self.__class__(total_count=self.total_count)

    def add_one(self, key, step_size=1):
        self[key] = self.get(key, 0) + step_size
        setattr(self, "total_count", floor(getattr(self, "total_count") + step_size))
        return self

    def get(self, key, default=None):
        return super().get(key, default)

    def __repr__(self):
        return "Bag(%s, total_count=%r)" % (dict.__repr__(self), self.total_count)
'''
OTHER = '''from .tools import split as cut, Bag

def words_of(text):
    """Calls :func:`split`, and split() too."""
    def key(word):
        return -len(word)
    return sorted(cut(text, sep=" ", most_parts=2), key=key)
'''


def toy_symbols() -> Symbols:
    """Return the names of the library."""
    return find_symbols("toylib", {"tools": ast.parse(TOOLS), "other": ast.parse(OTHER)})


def toy_renaming(seed: int = 0) -> Renaming:
    """Return a renaming of the library."""
    symbols = toy_symbols()
    return Renaming(symbols=symbols, words=Words(seed=seed, taken=symbols.all))

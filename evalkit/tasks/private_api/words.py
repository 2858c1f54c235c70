"""Pronounceable words without a meaning, one for each name and seed."""

from __future__ import annotations

import keyword
import random
from collections.abc import Collection

_CONSONANTS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "br", "dr", "kr", "pl", "st", "tr")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDINGS = ("", "", "l", "m", "n", "r", "x")


class Words:
    """A word for each name: the same one for the same seed, whatever other names there are, but for collisions."""

    def __init__(self, *, seed: int, taken: Collection[str]) -> None:
        """Give words that are not in `taken`, compared without case; `seed` selects other words."""
        self._seed = seed
        self._taken = {name.lower() for name in taken} | {name.lower() for name in keyword.kwlist}
        self._words: dict[str, str] = {}

    def word(self, name: str) -> str:
        """Return the word that replaces `name`, in the same case and with the same underscores before it."""
        if name not in self._words:
            self._words[name] = self._new_word(name)
        word, bare = self._words[name], name.lstrip("_")
        if bare.isupper():
            word = word.upper()
        elif bare[:1].isupper():
            word = word.capitalize() + ("Error" if bare.endswith("Error") else "")
        return "_" * (len(name) - len(bare)) + word

    def _new_word(self, name: str) -> str:
        numbers = random.Random(f"{self._seed} {name}")
        while True:
            syllables = [numbers.choice(_CONSONANTS) + numbers.choice(_VOWELS) for _ in range(numbers.choice((2, 3)))]
            word = "".join(syllables) + numbers.choice(_ENDINGS)
            if word not in self._taken:
                self._taken.add(word)
                return word

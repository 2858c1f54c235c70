"""Tests of renaming in documentation."""

from __future__ import annotations

from evalkit.tasks.private_api.documentation import DocumentationRenamer
from evalkit.tasks.private_api.transform import Renaming
from tests.evalkit.tasks.private_api.toy_library import toy_renaming

ARGUMENTS = frozenset({"text", "sep"})


def renamed(text: str, renaming: Renaming | None = None) -> str:
    return DocumentationRenamer(renaming or toy_renaming(), module="tools").docstring(text, ARGUMENTS)


def test_marked_names_are_replaced_and_words_of_prose_stay() -> None:
    names = toy_renaming()
    split, sep, bag = names.name("split"), names.name("sep"), names.name("Bag")
    assert renamed("We split at *sep*.") == f"We split at *{sep}*."
    assert renamed("See :func:`split` or split(), not ``str.split``.") == (
        f"See :func:`{split}` or {split}(), not ``str.split``."
    )
    assert renamed("A Bag with add_one.") == f"A {bag} with {names.name('add_one')}."


def test_lists_of_arguments_have_the_new_names() -> None:
    names = toy_renaming()
    text = "Args:\n    text (str): The text.\n    sep: Where.\n    other: Unknown.\n"
    assert renamed(text) == (
        f"Args:\n    {names.name('text')} (str): The text.\n    {names.name('sep')}: Where.\n    other: Unknown.\n"
    )


def test_examples_are_renamed_as_code() -> None:
    names = toy_renaming()
    text = (
        "Text.\n\n    >>> split(\"a-b\",\n    ...       sep=\"-\")\n    ['a', 'b']\n"
        "    >>> Bag()\n    Bag({}, total_count=0)\n"
    )
    expected = (
        f"Text.\n\n    >>> {names.name('split')}('a-b', {names.name('sep')}='-')\n    ['a', 'b']\n"
        f"    >>> {names.name('Bag')}()\n    {names.name('Bag')}({{}}, {names.name('total_count')}=0)\n"
    )
    assert renamed(text) == expected


def test_links_and_the_package_name_go() -> None:
    text = renamed("See toylib at https://example.org/toylib now.\n\n.. _x: https://example.org\n")
    assert "toylib" not in text
    assert "http" not in text
    assert ".. _x" not in text

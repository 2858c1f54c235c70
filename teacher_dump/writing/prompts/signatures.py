"""Prompts from the documented functions of a corpus: signature and docstring, without the body.

A function is used if it is at the top level of its module and has a docstring of at least MIN_DOCSTRING characters. Of
an overloaded name the first definition counts. The corpus passes through its own filters first.

A prompt is named by source and path of its document and by its function. Documents may share source and path, as rows
of files of one name in two folders do. The name of a later prompt then has the digest of its document, too.
"""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.document import Document
from teacher_dump.writing.prompts.prompt import RawPrompt, user_message

PREFIX = "signatures:"
"""Beginning of a value of --prompts that names a corpus."""
MIN_DOCSTRING = 40
"""Characters of a docstring that says what to write."""
_QUESTION = "Write a Python function with this signature and docstring. Answer with the complete function.\n"


def read_signatures(corpus: Corpus, *, is_chat: bool) -> Iterator[RawPrompt]:
    """Yield a prompt for each documented function of a corpus.

    Args:
        corpus: The documents.
        is_chat: Whether the writer has a chat template. A base model gets the beginning of the function.
    """
    task_ids: set[str] = set()
    for document in corpus:
        seen: set[str] = set()
        for name, stub in documented_functions(document.text):
            if name in seen:
                continue
            seen.add(name)
            task_id = f"{document.source}/{document.path}:{name}"
            if task_id in task_ids:
                task_id += f"@{document.sha256[:12]}"
            task_ids.add(task_id)
            yield _prompt(document, task_id, f"{_QUESTION}```python\n{stub}\n```" if is_chat else stub)


def documented_functions(source: str) -> Iterator[tuple[str, str]]:
    """Yield name and stub of each documented function at the top level of a module; nothing if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in strings
            module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = source.splitlines()
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("__"):
            docstring = ast.get_docstring(node, clean=False)
            if docstring is not None and len(inspect.cleandoc(docstring)) >= MIN_DOCSTRING and len(node.body) > 1:
                first = node.body[0]
                assert first.end_lineno is not None
                if first.lineno > node.lineno:  # not the rare function on one line
                    yield node.name, "\n".join(lines[node.lineno - 1 : first.end_lineno])


def _prompt(document: Document, task_id: str, content: str) -> RawPrompt:
    return RawPrompt(
        task_id=task_id,
        messages=user_message(content),
        source=document.source,
        path=document.path,
        licence=document.licence,
    )

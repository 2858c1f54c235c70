"""True and false positives of the decontamination threshold.

    python -m benchmarks.decontamination --mbpp mbpp.jsonl --data stdlib --data FOLDER

Prints two tables: the share of planted copies that is found, by part of the problem and by transformation of the copy;
and, for corpora without the benchmarks, how many documents share at least a given share of the n-grams of a prompt,
solution or test.
"""

from __future__ import annotations

import ast
import builtins
import textwrap
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import _common
from teacher_dump.corpus.corpus import Corpus
from teacher_dump.corpus.filters import ngrams
from teacher_dump.corpus.filters.benchmark_texts import BenchmarkTexts, ProblemTexts, load_benchmarks
from teacher_dump.corpus.filters.decontamination import THRESHOLD, ContaminationIndex

SHARES = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0)


class _Renamed(ast.NodeTransformer):
    """Rename every name that is neither a builtin, an import nor an attribute."""

    def __init__(self, tree: ast.AST) -> None:
        imported = {
            (a.asname or a.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for a in node.names
        }
        self._kept = imported | set(dir(builtins))
        self._names: dict[str, str] = {}

    def _new(self, name: str) -> str:
        return name if name in self._kept else self._names.setdefault(name, f"other_{len(self._names)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename a variable."""
        node.id = self._new(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Rename a parameter."""
        self.generic_visit(node)
        node.arg = self._new(node.arg)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.keyword:
        """Rename a keyword argument if its parameter was renamed."""
        self.generic_visit(node)
        if node.arg in self._names:
            node.arg = self._names[node.arg]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        """Rename a function."""
        node.name = self._new(node.name)
        self.generic_visit(node)
        return node


def renamed(source: str) -> str:
    """Return the source reformatted, without comments, with other names."""
    tree = ast.parse(source)
    return ast.unparse(_Renamed(tree).visit(tree))


def reformatted(source: str) -> str:
    """Return the source as `ast.unparse` formats it: no comments, other quotes, other line breaks."""
    return ast.unparse(ast.parse(source))


def recommented(source: str) -> str:
    """Return the source with other docstrings and a comment on every statement."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Expr(ast.Constant("Do what is to be done here."))
            if len(node.body) == 1:
                node.body.append(ast.Pass())
    return "\n".join(f"{line}  # line {i} was looked at" for i, line in enumerate(ast.unparse(tree).split("\n")))


def rewrapped(prompt: str) -> str:
    """Return a prompt as a comment with other line breaks."""
    return textwrap.fill(" ".join(prompt.split()), 60, initial_indent="# ", subsequent_indent="# ") + "\n"


def inside(text: str) -> str:
    """Return the text in the middle of a larger file."""
    lines = Path(textwrap.__file__).read_text(encoding="utf-8").split("\n")
    middle = next(i for i in range(len(lines) // 2, len(lines)) if lines[i].startswith(("def ", "class ")))
    return "\n".join([*lines[:middle], text, *lines[middle:]])


def copies(problem: ProblemTexts) -> Iterable[tuple[str, str, str]]:
    """Yield (part, transformation, text) for copies of a problem; skip those that do not parse."""
    code = "def " in problem.prompt
    whole = problem.prompt + problem.solution if code else problem.solution
    changes: dict[str, Callable[[str], str]] = {
        "verbatim": str,
        "reformatted": reformatted,
        "comments changed": recommented,
        "renamed": renamed,
        "in a larger file": inside,
    }
    for part, text in (("solution", whole), ("test", problem.test)):
        for name, change in changes.items():
            try:
                # A HumanEval solution contains the docstring of its prompt. Remove it, so that only code can match.
                plain = reformatted(recommented(text)) if part == "solution" and name != "verbatim" else text
                yield f"{part} alone", name, change(plain)
            except SyntaxError:
                continue
    if code:
        yield "solution alone", "body only", textwrap.dedent(problem.solution)
    yield "prompt alone", "verbatim", problem.prompt
    yield "prompt alone", "rewrapped, as a comment", rewrapped(problem.prompt)
    yield "prompt alone", "in a larger file", inside(problem.prompt)


def planted(contamination: ContaminationIndex, benchmark: BenchmarkTexts) -> None:
    """Print the share of planted copies that is found."""
    found: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    for problem in benchmark.problems:
        for part, change, text in copies(problem):
            found[part, change][contamination.find(text, ngrams.code_tokens(text)) is not None] += 1
    print(f"\n{benchmark.name}: planted copies found, of {len(benchmark.problems)} problems")
    for (part, change), counts in sorted(found.items()):
        print(f"  {part:15}  {change:24}  {counts[True]:5} of {counts.total():5}  {counts[True] / counts.total():6.1%}")


def innocent(contamination: ContaminationIndex, data: str) -> None:
    """Print how many documents of a corpus reach each share."""
    counts: Counter[float] = Counter()
    near, num_bytes, number, begin = [], 0, 0, time.process_time()
    for document in Corpus(data=data, seed=0):
        number += 1
        num_bytes += len(document.text)
        finding = contamination.nearest(document.text, ngrams.code_tokens(document.text))
        if finding is not None:
            counts.update(s for s in SHARES if finding.share >= s)
            near.append((finding.share, document.path, str(finding)))
    seconds = time.process_time() - begin
    print(f"\n{data}: {number:,} documents, {num_bytes / 1e6:.1f} MB, {num_bytes / 1e6 / seconds:.1f} MB/s")
    for share in SHARES:
        print(f"  {counts[share]:5} documents with at least {share:.0%} of the n-grams of a part")
    for _, path, text in sorted(near, reverse=True)[:10]:
        print(f"    {path}: {text}")


def main() -> None:
    """Print both tables."""
    parser = _common.parser(__doc__)
    parser.add_argument("--mbpp", help="mbpp.jsonl")
    parser.add_argument("--data", action="append", default=[], help="corpus without the benchmarks; repeatable")
    parser.add_argument("--no-planted", action="store_true", help="print only the second table")
    options = parser.parse_args()
    benchmarks = load_benchmarks("humaneval" + (f",mbpp={options.mbpp}" if options.mbpp else ""))
    contamination = ContaminationIndex(benchmarks)
    print(f"threshold {THRESHOLD:.0%}; too short to be found: {contamination.too_short() or 'nothing'}")
    if not options.no_planted:
        for benchmark in benchmarks:
            planted(contamination, benchmark)
    for data in options.data:
        innocent(contamination, data)


if __name__ == "__main__":
    main()

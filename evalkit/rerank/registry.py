"""The table of rankers, and rankers in files of the user.

To add a ranker to the table: write a function from `TaskEvidence` to `Ranking` in `evalkit/rerank/rankers/`, and add it
to `RANKERS`. It sees the evidence only, never verdicts or the benchmark's own tests. A ranker that needs no
model-written tests is named in `WITHOUT_TESTS` too.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from evalkit.errors import EvalError
from evalkit.rerank.evidence import TaskEvidence
from evalkit.rerank.rankers import agreement, combined, counting, functional_overlap
from evalkit.rerank.ranking import Ranking

Ranker = Callable[[TaskEvidence], Ranking]

RANKERS: dict[str, Ranker] = {
    "random": counting.random,
    "majority": counting.majority,
    "majority-valid": counting.majority_valid,
    "max-pass": counting.max_pass,
    "codet": agreement.codet,
    "srank": functional_overlap.srank,
    "srank-unweighted": functional_overlap.srank_unweighted,
    "srank-all": functional_overlap.srank_all,
    "b4": agreement.b4,
    "aces": agreement.aces,
    "alphacode": counting.alphacode,
    "combined": combined.combined,
}
"""Rankers by the name that `--methods` takes."""

WITHOUT_TESTS = frozenset({"random", "majority", "majority-valid", "alphacode"})
"""Rankers that need no model-written tests."""

WITHOUT_OUTPUTS = frozenset({"random", "max-pass", "codet", "b4", "aces"})
"""Rankers that do not compare outputs, so that the choice of inputs does not matter to them."""

BASELINE = "random"
"""The ranker that all methods are compared with."""

VERIFIER = "verifier"
"""The name of the ranker that `--verifier` adds to the table."""

ORACLE = "oracle"
"""The name under which the upper bound is reported: any sample passes. It is no ranker."""


def load_ranker(path: Path) -> tuple[str, Ranker]:
    """Return the name and the function `rank` of a ranker in a Python file, which runs in this process.

    Raises:
        EvalError: The file cannot be read, is not Python, or defines no `rank`.
    """
    name = path.stem
    if name in RANKERS or name in (VERIFIER, ORACLE):
        raise EvalError(f"--ranker {path}: {name} is the name of another method; rename the file")
    spec = importlib.util.spec_from_file_location(f"_ranker_{name}", path)
    if spec is None or spec.loader is None:
        raise EvalError(f"--ranker {path}: is no Python file; expected NAME.py with a function rank(evidence)")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (OSError, SyntaxError, ImportError) as error:
        raise EvalError(f"--ranker {path}: cannot be imported ({error}); expected a Python file with rank") from error
    ranker = getattr(module, "rank", None)
    if not callable(ranker):
        raise EvalError(f"--ranker {path}: defines no function rank; expected rank(evidence), which returns a Ranking")
    return name, ranker


def choose_methods(
    names: Sequence[str], rankers: Mapping[str, Ranker], *, has_tests: bool, option: str = "--methods"
) -> tuple[str, ...]:
    """Return the names of the rankers to run: `BASELINE` first, then those that are named.

    Args:
        names: Names of rankers, or `ORACLE`, which is always reported; none for all that the inputs allow.
        rankers: The known rankers.
        has_tests: Whether there are model-written tests.
        option: The option that gave the names, for errors.

    Raises:
        EvalError: A name is unknown, or a ranker needs tests and there are none.
    """
    if VERIFIER in names and VERIFIER not in rankers:
        raise EvalError(
            f"{option}: verifier needs a trained one; run 'evalkit rerank --verifier FOLDER', or leave it out"
        )
    if VERIFIER in rankers and not has_tests:
        raise EvalError("--verifier: needs model-written tests; add --tests FILE, or leave the option out")
    for name in names:
        if name not in rankers and name != ORACLE:
            raise EvalError(f"{option}: {name!r} is unknown, expected some of {', '.join([*rankers, ORACLE])}")
        if not has_tests and _needs_tests(name):
            raise EvalError(f"{option}: {name} needs model-written tests; add --tests FILE, or leave the method out")
    allowed = [name for name in rankers if has_tests or not _needs_tests(name)]
    chosen = [name for name in names if name != ORACLE] if names else allowed
    return tuple(dict.fromkeys([BASELINE, *chosen]))


def _needs_tests(name: str) -> bool:
    """Return whether a method needs model-written tests; a ranker in a file of the user decides for itself."""
    return name in {*RANKERS, VERIFIER} - WITHOUT_TESTS

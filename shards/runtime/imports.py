"""Make the imports of a command quicker: over a quarter of the CPU time until a model class is imported is spared.

- transformers imports scikit-learn, with scipy and pandas, wherever it is installed. It needs it for assisted
  generation only, which no command does.
- Importing makes hundreds of thousands of objects that stay. Python's collector of cycles looks at them again and
  again, after each 700 (2,000 from Python 3.12 on) new ones.

`python -m benchmarks.start_time` measures both.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

COLLECTION_THRESHOLDS = (50_000, 20, 20)
"""Arguments of `gc.set_threshold`."""
_USER = "transformers.generation.candidate_generator"
"""Module that imports scikit-learn if `transformers.utils.is_sklearn_available` says so."""


def quicken_imports() -> None:
    """Collect cycles less often, and let transformers take scikit-learn for missing, in this process. Idempotent."""
    gc.set_threshold(*COLLECTION_THRESHOLDS)
    if _USER not in sys.modules and not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch(MetaPathFinder):
    """Finds no module. It changes the answer of transformers just before it is asked for; other imports stay."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _USER:
            sys.meta_path.remove(self)
            sys.modules["transformers.utils"].is_sklearn_available = lambda: False  # type: ignore[attr-defined]
        return None

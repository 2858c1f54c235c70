"""Which packages a command imports with transformers."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow

CODE = """
import json, sys
from shards.runtime.imports import quicken_imports
for _ in range(2):
    quicken_imports() if {skip} else None
from transformers import GenerationMixin
names = [name for name in ("sklearn", "scipy", "pandas") if name in sys.modules]
import sklearn.linear_model  # whoever wants it still gets it
print(json.dumps(names), sum(type(finder).__name__ == "_Watch" for finder in sys.meta_path))
"""


@pytest.mark.parametrize(("skip", "expected"), [(True, set()), (False, {"sklearn", "scipy"})])
def test_generation_is_imported_without_scikit_learn(skip: bool, expected: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(skip=skip)], capture_output=True, text=True, check=True, timeout=300
    )
    names, _, watches = done.stdout.rpartition(" ")
    found = set(json.loads(names))
    assert bool(found) == bool(expected)
    assert found >= expected
    assert int(watches) == 0

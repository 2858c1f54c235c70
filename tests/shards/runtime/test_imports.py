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
quicken_imports()
quicken_imports()
from transformers import GenerationMixin
names = [name for name in ("sklearn", "scipy", "pandas") if name in sys.modules]
import sklearn.linear_model  # whoever wants it still gets it
print(json.dumps(names), sum(type(finder).__name__ == "_Watch" for finder in sys.meta_path))
"""


def test_generation_is_imported_without_scikit_learn() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=300)
    names, _, watches = done.stdout.rpartition(" ")
    assert json.loads(names) == []
    assert int(watches) == 0

"""Does it agree with the reference? EvalPlus' form of a check: inputs, expected values, a tolerance.

`Job.inputs` holds {"name", "inputs": encoded argument lists, "expected": encoded values, "atol"}. Inputs go
over the wall in batches; the expected values never leave the judge.
"""

from __future__ import annotations

from typing import Any

_BATCH = 64


def check(session: Any, job: dict[str, Any]) -> tuple[str, str]:
    """Return (outcome, detail) of comparing every answer with the expected one."""
    raise NotImplementedError

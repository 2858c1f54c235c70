"""One thread for every test and for the processes that tests start: bit-exact results, and tests that run in parallel.

Every command and torch read `OMP_NUM_THREADS`. A test that needs more threads sets it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

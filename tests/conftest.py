"""One thread for every test, also in the processes that tests start: results to the bit, and many tests at once.

`OMP_NUM_THREADS` is what every command and torch itself obey. A test that wants more threads says so.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

"""Score checkpoints on programming benchmarks, with confidence intervals.

`evalkit` reads a checkpoint folder, or samples generated elsewhere. It runs the programs in a sandbox and writes one
JSON result. It exchanges only files with the other packages; of `shards` it imports `shards.runtime` alone.
"""

from __future__ import annotations

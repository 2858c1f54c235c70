"""Scripts behind every figure of the documentation; each runs as `python -m benchmarks.NAME`."""

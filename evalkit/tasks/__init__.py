"""Benchmarks: problems, prompts, and the pinned data files that hold them."""

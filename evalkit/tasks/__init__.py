"""Benchmarks, prompts, protocols, and the pinned data files that hold the problems."""

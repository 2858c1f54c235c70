"""Run a large teacher once over a corpus and keep, per token, a sparse record of its distribution."""

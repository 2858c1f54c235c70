"""Run a large teacher once over a corpus, and write a sparse record of its distribution for each token."""

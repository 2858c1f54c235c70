"""Training data: the order of rows, prefetching, packing into sequences."""

"""Make a cache of what other tools stored: fixed top-k log-probabilities in Parquet files."""

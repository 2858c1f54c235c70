"""The select stage: choose and order the samples of each problem that are scored."""

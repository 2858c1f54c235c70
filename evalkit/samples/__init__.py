"""Samples: the programs to score, from a model or from files, and their sanitizer."""

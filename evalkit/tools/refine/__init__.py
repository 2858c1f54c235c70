"""Refinement: run a program on what its prompt shows, show the model the first failure, and ask again."""

"""Evaluation of a student on held-out rows and short completions."""

"""Scores from verdicts: grading, time limits, pass@k and intervals."""

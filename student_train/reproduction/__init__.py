"""Publish runs, fetch and repeat published ones, and say whether two runs are the same."""

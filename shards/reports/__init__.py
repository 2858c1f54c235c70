"""Descriptions of a cache for people: summary, statistics, fidelity, plots."""

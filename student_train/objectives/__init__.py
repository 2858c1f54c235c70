"""Objectives: what a batch holds and how its loss is computed."""

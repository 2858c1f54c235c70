"""Tests of calls of tools inside answers."""

"""Tests of publishing and repeating runs."""

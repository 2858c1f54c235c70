"""Tests of the experiment with tools."""

"""Tests of the comparison of methods that choose among samples."""

"""Tests of `student_train.pruning`."""

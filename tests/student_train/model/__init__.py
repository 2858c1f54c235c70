"""Tests of `student_train.model`."""

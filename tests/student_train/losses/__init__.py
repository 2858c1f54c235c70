"""Tests of `student_train.losses`."""

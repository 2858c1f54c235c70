"""Tests of `student_train.data`."""

"""Tests of `student_train.cross_tokenizer`."""

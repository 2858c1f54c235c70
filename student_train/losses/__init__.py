"""Losses over sparse teacher records, for a student with the teacher's vocabulary."""

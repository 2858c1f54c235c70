"""Distillation into a student whose tokenizer differs from the teacher's."""

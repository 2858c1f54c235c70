"""Distillation into a student with another tokenizer than the teacher's."""

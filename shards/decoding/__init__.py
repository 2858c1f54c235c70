"""Decoding with transformers models, for the engines of `teacher-dump` and `evalkit` alone: it needs torch."""

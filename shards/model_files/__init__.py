"""Tokenizer and weight files of a model folder, read without torch and transformers."""

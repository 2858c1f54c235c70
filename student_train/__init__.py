"""How does a small model learn from shards? Streams them, trains a student, writes a plain transformers folder."""

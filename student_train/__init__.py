"""Train a small model on stored records of a teacher, and write it as a plain transformers folder."""

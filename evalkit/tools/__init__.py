"""Tools that a model calls while it writes: a Python interpreter and a search in documentation."""

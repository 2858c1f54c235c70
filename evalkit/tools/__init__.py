"""Tools that a model uses while it writes: an interpreter and documentation search."""

"""The student: where it comes from, loading, output projection, adapters, compilation."""

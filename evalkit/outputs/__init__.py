"""Output files: their names, the checks on them, and the JSON result."""

"""Facts about a cache: statistics of its records, its fidelity to the teacher, one row, and plots."""

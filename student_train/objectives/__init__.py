"""Training objectives: what a batch holds, how its loss is computed, and what is measured on held-out rows."""

"""Rules that keep documents out of the corpus."""

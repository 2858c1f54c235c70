"""Losses over sparse teacher records with one shared vocabulary."""

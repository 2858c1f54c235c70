"""Prompts: where they come from, and which are used."""

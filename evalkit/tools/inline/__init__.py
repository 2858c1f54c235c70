"""Calls of tools inside an answer: their form, their prompts, and the generate stage that makes them."""

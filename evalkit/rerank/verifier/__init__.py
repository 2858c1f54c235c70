"""The verifier: a learned probability that a program is right, from its text and its execution."""

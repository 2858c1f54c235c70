"""The benchmark `private-api`: problems over a library whose names no model has seen."""

"""Inputs: the calls on which programs are compared, by source."""

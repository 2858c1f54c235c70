"""Readers: raw documents from folders of sources, tables and hub data sets."""

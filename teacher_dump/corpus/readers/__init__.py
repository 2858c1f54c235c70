"""Readers of documents from folders, tables and data sets."""

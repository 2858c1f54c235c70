"""The corpus: readers of documents, filters, and one order of what the filters keep."""

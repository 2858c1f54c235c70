"""Units of work: documents are cut into windows, and windows are grouped into tasks."""

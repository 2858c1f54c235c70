"""Units of work: windows of documents grouped into tasks."""

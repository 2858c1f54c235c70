"""Sample files: read, write and sanitize generated programs."""

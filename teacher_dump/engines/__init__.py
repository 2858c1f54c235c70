"""Teacher engines: token windows in, packed sparse records out."""

"""One dump from its settings to its manifest."""

"""Query, key and value vectors of one teacher layer: settings, layout and capture."""

"""Where bytes are kept: stores reached through fsspec, atomic local files, and per-user caches."""

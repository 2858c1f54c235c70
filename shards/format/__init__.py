"""The on-disk format: Arrow schema, codec, record batches, manifest and side files."""

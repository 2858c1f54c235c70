"""The on-disk format: schema, codec, record batches and the manifest."""

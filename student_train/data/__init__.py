"""Training data: order, reading ahead and packing of rows."""

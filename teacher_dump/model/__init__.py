"""The teacher model: short names, local folder and loading."""

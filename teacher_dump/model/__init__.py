"""The teacher model: its name, its files and how it is loaded."""

"""Files of a run: checkpoints, export, metrics and the run record."""

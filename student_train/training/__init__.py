"""The training loop: build a run, take steps, stop and resume."""

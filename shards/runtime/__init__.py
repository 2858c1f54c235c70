"""The process and its machine: processor, signals, child processes, progress lines."""

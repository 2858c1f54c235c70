"""The process and its machine: command line, signals, child processes, progress lines, processor."""

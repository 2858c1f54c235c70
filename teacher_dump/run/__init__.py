"""A dump from its settings to its manifest: claim the folder, run the tasks, complete the cache."""

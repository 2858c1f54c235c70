"""Layer pruning: choose layers of a model and build the shallower one."""

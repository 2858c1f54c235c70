"""Make a student shallower: choose layers, rewrite the configuration, build and check the short model."""

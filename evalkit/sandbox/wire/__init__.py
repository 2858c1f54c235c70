"""Values and messages that cross between guest and host."""

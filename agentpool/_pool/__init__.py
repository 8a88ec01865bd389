"""Many agents, a few at a time."""

"""One agent, driven."""

"""One agent at work: its requests, its tool calls and its spending."""

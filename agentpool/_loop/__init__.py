"""The rules of one agent, without I/O."""

"""The tools of MCP servers: processes, sessions, and descriptions for models."""

"""MCP servers as tools: their processes and sessions, and what models are told of them."""

"""Tools of MCP servers: their processes, their sessions, and what models see of them."""

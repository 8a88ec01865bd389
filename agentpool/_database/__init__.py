"""SQLite files: the only folder that uses SQLite."""

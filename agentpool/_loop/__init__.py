"""What one agent does, decided without I/O."""

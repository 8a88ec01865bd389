"""How agents send each other messages."""

"""How agents send messages to each other."""

"""Who runs, and how an agent waits without a slot."""

"""Which agents run, and how an agent waits without a slot."""

"""The tools that come with agentpool."""

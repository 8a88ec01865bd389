"""The tools that come with agentpool: one room for what a grant, or a manifest, can give."""

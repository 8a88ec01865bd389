"""Pools: many agents, a few running at a time."""

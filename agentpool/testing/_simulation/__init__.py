"""Runs scenarios: on a clock that jumps, in chosen orders, cancelled at chosen points."""

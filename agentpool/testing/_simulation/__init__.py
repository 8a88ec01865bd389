"""Runs scenarios on a virtual clock, in chosen task orders, cancelled at chosen points."""

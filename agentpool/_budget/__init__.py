"""Limits that many agents share."""

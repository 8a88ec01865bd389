"""Watching a pool: observers that are called, readers that take events in their own time."""

from agentpool.abc import Observer as Observer
from agentpool.observe._hub import EventReader as EventReader

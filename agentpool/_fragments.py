"""The fragments of a memory, queries for them, and hits."""

from __future__ import annotations

from typing import final

import msgspec

from agentpool._checks import expect_fields


@final
class Fragment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing that an agent remembers."""

    content: str
    """The text of the fragment."""
    scope: str
    """The scope of the fragment: only a recall in the same scope finds it."""
    source: str = "conversation"
    """The origin: ``conversation``, ``tool``, ``user`` or ``system``."""
    fragment_id: str = ""
    """The memory's own name for it. Empty until it is stored."""
    created_at: float = 0.0
    """When it was created, in seconds on the memory's clock: ``memory.now()``."""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self)


@final
class MemoryQuery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to look for in a memory."""

    text: str
    """Words to look for. Empty: the newest fragments."""
    scope: str
    """The scope to search."""
    limit: int = 5
    """The maximum number of hits."""
    source: str | None = None
    """Find only fragments from this source. ``None``: fragments from all sources."""
    since: float | None = None
    """Find only fragments created at this time or later. ``None``: fragments of any age."""

    def __post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self)


@final
class MemoryHit(msgspec.Struct, frozen=True, gc=False):
    """A fragment that a recall found."""

    fragment: Fragment
    """The fragment that was found."""
    score: float
    """How well it fits, 0.0 to 1.0; comparable only within one recall."""

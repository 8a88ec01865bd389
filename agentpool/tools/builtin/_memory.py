"""Tools to remember and recall notes."""

from __future__ import annotations

from typing import Annotated, final

import attrs
from msgspec import Meta

from agentpool._checks import expect_arguments
from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability, CapabilityKind
from agentpool.abc import Fragment, Memory, MemoryQuery, Tool
from agentpool.tools._failure import clip
from agentpool.tools._function import tool

MAX_CONTENT_CHARS = 10_000
"""The most characters of a note: four pages. A longer text is a document and belongs in a file."""

MAX_RECALLED = 20
"""The most notes that are returned. This is more than a model can use. Together with the next
limit, it means at most 10,000 tokens."""

MAX_SHOWN_CHARS = 2_000
"""The most characters of each recalled note: a model that wants the rest can search for it."""

_GRANT = Capability(CapabilityKind.MEMORY)


def memory_tools(memory: Memory, scope: str) -> tuple[Tool, ...]:
    """Return the tools ``remember`` and ``recall`` on *memory*, for one agent.

    Args:
        memory: Where fragments are kept. Pass the pool's memory, so that the loop recalls them too.
        scope: The scope of the fragments. The model cannot choose a different one.
    """
    expect_arguments(memory_tools, locals())
    notes = _Notes(memory, scope)
    return (
        tool(capability=_GRANT)(notes.remember),
        tool(capability=_GRANT, on_unknown="rerun")(notes.recall),
    )


@final
@attrs.frozen(eq=False)
class _Notes:
    _memory: Memory
    _scope: str

    async def remember(
        self, content: Annotated[str, Meta(min_length=1, max_length=MAX_CONTENT_CHARS)]
    ) -> str:
        """Keep a note for later.

        Args:
            content: The note, in words by which it can be found again.
        """
        if not content.strip():
            raise ToolError(f"content must not be blank, got {content!r}; say what to keep")
        fragment = Fragment(
            content=content, scope=self._scope, source="tool", created_at=self._memory.now()
        )
        return f"Stored memory: {await self._memory.remember(fragment)}"

    async def recall(
        self, query: str, limit: Annotated[int, Meta(ge=1, le=MAX_RECALLED)] = 5
    ) -> str:
        """Find notes that were kept earlier.

        Args:
            query: Words to look for. Empty for the newest notes.
            limit: The most notes to return.
        """
        hits = await self._memory.recall(MemoryQuery(text=query, scope=self._scope, limit=limit))
        lines = [
            f"{n}. [score={hit.score:.2f}] {clip(hit.fragment.content, MAX_SHOWN_CHARS)}"
            for n, hit in enumerate(hits, start=1)
        ]
        return "\n".join(lines) or "No memories found."

"""Checks whether a node has the same tools as the program."""

from __future__ import annotations

from collections.abc import Iterator

from agentpool.cluster._node_messages import ToolFacts


def tool_faults(
    here: tuple[ToolFacts, ...] | None, there: tuple[ToolFacts, ...] | None
) -> Iterator[str]:
    """Yield the differences between the tools of the program and of a node, one sentence for each.

    Args:
        here: The shared tools of the program's module. ``None``: each agent gets tools of its own.
        there: The shared tools of the node's module.
    """
    if here is None:
        return
    if there is None:
        yield (
            "its tools are made for each agent, but the program's are one registry; install the "
            "same module"
        )
        return
    ours, theirs = ({one.definition.name: one for one in tools} for tools in (here, there))
    for name in ours:
        if name not in theirs:
            yield f"it has no tool {name!r}, but the program does; install the same module"
        elif differing := ", ".join(_differences(ours[name], theirs[name])):
            yield (
                f"its tool {name!r} differs from the program's in {differing}; install the same "
                "module"
            )
    for name in theirs:
        if name not in ours:
            yield f"it has a tool {name!r}, but the program does not; install the same module"


def _differences(one: ToolFacts, other: ToolFacts) -> Iterator[str]:
    """Yield the names of the fields that differ."""
    for name in ("description", "input_schema"):
        if getattr(one.definition, name) != getattr(other.definition, name):
            yield name
    for name in ("capability", "timeout_seconds", "needs_approval", "waits", "on_unknown"):
        if getattr(one, name) != getattr(other, name):
            yield name

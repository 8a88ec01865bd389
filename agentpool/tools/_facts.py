"""Checks what a tool says of itself: users write classes of tools by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast, final

import msgspec

from agentpool._checks import expect, expect_fields
from agentpool._errors import UsageError
from agentpool._manifest.capability import Capability
from agentpool._manifest.parts import OnUnknown
from agentpool._messages import ToolDefinition
from agentpool.abc import Tool


@final
class _Facts(msgspec.Struct, frozen=True):
    """What a tool says of itself besides its definition."""

    capability: Capability | None
    timeout_seconds: float | None
    needs_approval: bool
    waits: bool
    on_unknown: OnUnknown


def checked_name(tool: object) -> str:
    """Return the name of *tool*. Raise if it is no tool, or one of its properties is wrong.

    Raises:
        UsageError: Names the tool and the property.
    """
    # A function without @tool is the usual slip, and type checkers are optional.
    if not isinstance(tool, Tool):
        raise UsageError(f"{tool!r} is not a tool; decorate the function with @tool")
    definition, kind = tool.definition, type(tool).__name__
    expect(
        definition, ToolDefinition, "definition of a tool must be a ToolDefinition",
        "write ToolDefinition(name, description, input_schema)",
    )  # fmt: skip
    name = definition.name
    facts = _Facts(*[getattr(tool, fact) for fact in _Facts.__struct_fields__])
    try:
        expect_fields(facts, of=kind)
    except UsageError as error:
        raise UsageError(f"tool {name!r}: {error}") from None
    seconds = facts.timeout_seconds
    if seconds is not None and not seconds > 0:
        raise UsageError(
            f"tool {name!r}: timeout_seconds must be > 0 or None, got {seconds!r}; see help({kind})"
        )
    try:
        msgspec.json.encode(definition.input_schema, enc_hook=_plain)
    except Exception as error:  # what an encoder meets in foreign objects may raise anything
        raise UsageError(
            f"tool {name!r}: definition.input_schema must be JSON: {error}; write a JSON Schema "
            "of plain data"
        ) from error
    return name


def _plain(value: object) -> object:
    """Return a read-only mapping or a sequence as a type that the encoder can write."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Collection):
        return list(cast("Collection[object]", value))
    raise UsageError(f"it has a value of type {type(value).__name__}")

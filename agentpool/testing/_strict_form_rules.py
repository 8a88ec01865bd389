"""Rules for the form of a request: roles, names, and places for images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from agentpool.testing._strict_asked import Fields, StrictAsked, fields, items, text

_NAME: Final = r"[a-zA-Z0-9_-]{1,64}"


def legal_names(asked: StrictAsked) -> str | None:
    """Refuse invalid names of tools, also in calls: OpenAI (mcp-use#90), Bedrock (mastra#13632).

    Seen at both in November 2026. Anthropic takes 128 characters, which nobody needs.
    """
    for name in _names(asked):
        if not re.fullmatch(_NAME, name):
            return (
                f"Invalid name of a tool: {name!r} does not match pattern. Expected a string that "
                "matches the pattern '^[a-zA-Z0-9_-]+$', of at most 64 characters."
            )
    return None


def _names(asked: StrictAsked) -> Iterator[str]:
    for tool in items(asked.body.get("tools")):
        yield text(_named(tool).get("name"))
    for _, call in asked.calls():
        yield text(_named(call).get("name"))
    for message in asked.messages:
        if message.get("type") == "function_call":
            yield text(message.get("name"))
    for block in asked.blocks("assistant"):
        if block.get("type") == "tool_use":
            yield text(block.get("name"))


def _named(one: Fields) -> Fields:
    return fields(one["function"]) if "function" in one else one

"""Removes names of tool arguments that Claude refuses, and describes them in words.

A single refused name makes every request fail, and with it the agent. Such an argument is described
in words instead: a model still writes it, and the tool gets it under its own name. Only names at
the top level are checked, as the API does (decocms/studio#6874,
aws-solutions-library-samples/accelerated-intelligent-document-processing-on-aws#709, 2026-09).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Final, cast

import msgspec

from agentpool._messages import ToolDefinition
from agentpool.drivers.wire._body import encode_json

_LEGAL: Final = re.compile(r"[a-zA-Z0-9_.-]{1,64}")


def with_legal_keys(tool: ToolDefinition) -> ToolDefinition:
    """Return *tool* with arguments whose names Claude refuses moved to its description."""
    schema = tool.input_schema
    found = schema.get("properties")
    is_table = isinstance(found, Mapping)
    properties: Mapping[str, object] = cast("Mapping[str, object]", found) if is_table else {}
    odd = {key: one for key, one in properties.items() if not _LEGAL.fullmatch(key)}
    if not odd:
        return tool
    required = cast("Collection[object]", schema.get("required", ()))
    told = f"{tool.description}\nIt takes more arguments, by exactly these names, as JSON Schemas: "
    told += encode_json(odd).decode()
    named = frozenset(key for key in required if isinstance(key, str))
    if needed := [key for key in odd if key in named]:
        told += f"\nOf these it needs: {encode_json(needed).decode()}"
    # What is closed would forbid them.
    kept = {key: one for key, one in schema.items() if key != "additionalProperties"}
    kept["properties"] = {key: one for key, one in properties.items() if key not in odd}
    if "required" in kept:
        kept["required"] = [key for key in required if key not in odd]
    return msgspec.structs.replace(tool, description=told.strip(), input_schema=kept)

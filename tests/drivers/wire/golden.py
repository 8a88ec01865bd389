"""Recorded streams of both wires, and what they come to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from agentpool import Usage
from agentpool.abc import Completion
from agentpool.drivers import FinishReason, ProviderPart, ToolCall
from agentpool.drivers._hearer import Accumulator
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._messages_answer import MessageAccumulator

PREFIX = "call-9"
"""What the ids of calls without one begin with."""

WIRES: Final[Mapping[str, Callable[[], Accumulator]]] = {
    "openai": lambda: ChatAccumulator(call_id_prefix=PREFIX),
    "anthropic": lambda: MessageAccumulator(call_id_prefix=PREFIX),
}

HERE = Path(__file__).parent
GOLDEN = [stream for wire in WIRES for stream in sorted((HERE / wire).glob("*.sse"))]


def name_of(golden: Path) -> str:
    """Return what a test calls a recorded stream."""
    return f"{golden.parent.name}-{golden.stem}"


def accumulator_of(golden: Path) -> Accumulator:
    """Return what puts this stream together."""
    return WIRES[golden.parent.name]()


def expected_of(golden: Path) -> dict[str, Any]:
    """Return what is written next to a recorded stream."""
    found: dict[str, Any] = json.loads(golden.with_suffix(".expected.json").read_text("utf-8"))
    return found


def completion_of(expected: Mapping[str, Any]) -> Completion:
    """Return the answer that is written there."""
    return Completion(
        text=expected["text"],
        tool_calls=tuple(ToolCall(*one) for one in expected["tool_calls"]),
        finish_reason=FinishReason[expected["finish"]],
        usage=expected["usage"] and Usage(*expected["usage"]),
        model=expected["model"],
        parts=tuple(ProviderPart("", "", *one) for one in expected.get("parts", ())),
    )

"""openai-agents: one `Agent` for all runs, `await Runner.run(...)`, without its tracing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from one import Ask, Run
from openai.types.responses import (
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
)

PACKAGE, IMPORT = "openai-agents", "from agents import Agent, Runner"


@function_tool
def add(x: int) -> int:
    """Add one."""
    return x + 1


class Fake(Model):
    """Calls the tool as often as it is told, then answers."""

    def __init__(self, ask: Ask, calls: int) -> None:
        self.ask, self.calls, self.called = ask, calls, 0

    async def get_response(self, *args: object, **kwargs: object) -> ModelResponse:
        await self.ask()
        if self.called == self.calls:
            self.called = 0
            text = ResponseOutputText(text="done", type="output_text", annotations=[])
            item: Any = ResponseOutputMessage(
                id="m", content=[text], role="assistant", status="completed", type="message"
            )
        else:
            self.called += 1
            item = ResponseFunctionToolCall(
                arguments=json.dumps({"x": self.called}),
                call_id=f"c{self.called}",
                name="add",
                type="function_call",
            )
        return ModelResponse(output=[item], usage=Usage(), response_id=None)

    def stream_response(self, *args: object, **kwargs: object) -> AsyncIterator[Any]:
        raise NotImplementedError


def runner(ask: Ask, calls: int) -> Run:
    """Make an agent."""
    set_tracing_disabled(True)
    agent = Agent(name="agent", model=Fake(ask, calls), tools=[add] if calls else [])

    async def run() -> object:
        return await Runner.run(agent, "go", max_turns=calls + 2)

    return run

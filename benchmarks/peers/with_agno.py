"""agno: one `Agent` for all runs, `await agent.arun(...)`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

from agno.agent import Agent
from agno.models.base import Model
from agno.models.response import ModelResponse
from one import Ask, Run

PACKAGE, IMPORT = "agno", "from agno.agent import Agent"


def add(x: int) -> int:
    """Add one."""
    return x + 1


class Fake(Model):
    """Calls the tool as often as it is told, then answers."""

    def __init__(self, ask: Ask, calls: int) -> None:
        super().__init__(id="fake")
        self.ask, self.calls, self.called = ask, calls, 0

    async def ainvoke(self, *args: object, **kwargs: object) -> ModelResponse:
        await self.ask()
        if self.called == self.calls:
            self.called = 0
            return ModelResponse(role="assistant", content="done")
        self.called += 1
        function = {"name": "add", "arguments": json.dumps({"x": self.called})}
        call = {"id": f"c{self.called}", "type": "function", "function": function}
        return ModelResponse(role="assistant", tool_calls=[call])

    def invoke(self, *args: object, **kwargs: object) -> ModelResponse:
        raise NotImplementedError

    def invoke_stream(self, *args: object, **kwargs: object) -> Iterator[ModelResponse]:
        raise NotImplementedError

    def ainvoke_stream(self, *args: object, **kwargs: object) -> AsyncIterator[ModelResponse]:
        raise NotImplementedError

    def _parse_provider_response(self, response: object, **kwargs: object) -> ModelResponse:
        raise NotImplementedError

    def _parse_provider_response_delta(self, response: object) -> ModelResponse:
        raise NotImplementedError


def runner(ask: Ask, calls: int) -> Run:
    """Make an agent."""
    agent = Agent(model=Fake(ask, calls), tools=[add] if calls else None, telemetry=False)

    async def run() -> object:
        return await agent.arun("go")

    return run

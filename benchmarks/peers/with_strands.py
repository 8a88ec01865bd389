"""strands: an `Agent` for each run, because one keeps its conversation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from one import Ask, Run
from strands import Agent, tool
from strands.models.model import Model

PACKAGE, IMPORT = "strands-agents", "from strands import Agent"


@tool
def add(x: int) -> int:
    """Add one."""
    return x + 1


class Fake(Model):
    """Calls the tool as often as it is told, then answers."""

    def __init__(self, ask: Ask, calls: int) -> None:
        self.ask, self.calls, self.called = ask, calls, 0

    def update_config(self, **model_config: object) -> None:
        """Keep nothing."""

    def get_config(self) -> dict[str, Any]:
        return {}

    async def structured_output(self, *args: object, **kwargs: object) -> AsyncIterator[Any]:  # noqa: ASYNC900  # type: ignore[override]
        raise NotImplementedError
        yield

    async def stream(self, *args: object, **kwargs: object) -> AsyncIterator[Any]:  # noqa: ASYNC900  # type: ignore[override]
        await self.ask()
        yield {"messageStart": {"role": "assistant"}}
        if self.called == self.calls:
            self.called = 0
            yield {"contentBlockStart": {"start": {}}}
            yield {"contentBlockDelta": {"delta": {"text": "done"}}}
            stop = "end_turn"
        else:
            self.called += 1
            use = {"name": "add", "toolUseId": f"c{self.called}"}
            yield {"contentBlockStart": {"start": {"toolUse": use}}}
            given = {"toolUse": {"input": json.dumps({"x": self.called})}}
            yield {"contentBlockDelta": {"delta": given}}
            stop = "tool_use"
        yield {"contentBlockStop": {}}
        yield {"messageStop": {"stopReason": stop}}


def runner(ask: Ask, calls: int) -> Run:
    """Make a new agent for each run."""
    model = Fake(ask, calls)

    async def run() -> object:
        agent = Agent(model=model, tools=[add] if calls else [], callback_handler=None)
        return await agent.invoke_async("go")

    return run

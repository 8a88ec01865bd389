"""pydantic-ai: one `Agent` for all runs, `await agent.run(...)`."""

from __future__ import annotations

from one import Ask, Run
from pydantic_ai import Agent, UsageLimits
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

PACKAGE, IMPORT = "pydantic-ai-slim", "from pydantic_ai import Agent"


def add(x: int) -> int:
    """Add one."""
    return x + 1


def runner(ask: Ask, calls: int) -> Run:
    """Make an agent whose model calls the tool as often as it is told."""

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        await ask()
        called = len(messages) // 2
        if called == calls:
            return ModelResponse(parts=[TextPart("done")])
        return ModelResponse(parts=[ToolCallPart("add", {"x": called}, f"c{called}")])

    agent = Agent(FunctionModel(answer), tools=[add] if calls else ())

    async def run() -> object:
        return await agent.run("go", usage_limits=UsageLimits(request_limit=None))

    return run

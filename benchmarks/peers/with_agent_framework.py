"""agent-framework: one agent of a chat client for all runs, `await agent.run(...)`."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from agent_framework import (
    BaseChatClient,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
    tool,
)
from one import Ask, Run

PACKAGE, IMPORT = "agent-framework-core", "from agent_framework import Agent, BaseChatClient"


@tool(approval_mode="never_require")
def add(x: int) -> int:
    """Add one."""
    return x + 1


class Fake(FunctionInvocationLayer, BaseChatClient):
    """Calls the tool as often as it is told, then answers."""

    def __init__(self, ask: Ask, calls: int) -> None:
        settings = {"max_iterations": calls + 1, "max_function_calls": calls + 1}
        super().__init__(function_invocation_configuration=settings)
        self.ask, self.calls, self.called = ask, calls, 0

    def _inner_get_response(
        self,
        *,
        messages: Sequence[Message],
        stream: bool,
        options: Mapping[str, Any],
        **kwargs: object,
    ) -> Awaitable[ChatResponse]:
        return self._answer()

    async def _answer(self) -> ChatResponse:
        await self.ask()
        if self.called == self.calls:
            self.called = 0
            return ChatResponse(messages=[Message("assistant", ["done"])])
        self.called += 1
        call = Content.from_function_call(
            call_id=f"c{self.called}", name="add", arguments={"x": self.called}
        )
        return ChatResponse(messages=[Message("assistant", [call])])


def runner(ask: Ask, calls: int) -> Run:
    """Make an agent."""
    agent = Fake(ask, calls).as_agent(name="agent", tools=[add] if calls else None)

    async def run() -> object:
        return await agent.run("go")

    return run

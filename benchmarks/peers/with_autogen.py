"""autogen-core: messages to agents of a runtime.

It has no loop of its own: as in its documentation, the handler asks the model, runs the
`FunctionTool`, and asks again.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from autogen_core import (
    AgentId,
    CancellationToken,
    MessageContext,
    RoutedAgent,
    SingleThreadedAgentRuntime,
    message_handler,
)
from autogen_core.tools import FunctionTool
from one import Ask, Run

PACKAGE, IMPORT = "autogen-core", "import autogen_core"


@dataclass
class Answer:
    """What the run ends with."""

    text: str


@dataclass
class Go:
    """The question of the run."""

    text: str


def add(x: int) -> int:
    """Add one."""
    return x + 1


class Worker(RoutedAgent):
    """Asks the model, calls the tool, and asks again."""

    def __init__(self, ask: Ask, calls: int) -> None:
        super().__init__("worker")
        self.ask, self.calls = ask, calls
        self.tool = FunctionTool(add, description="Add one.") if calls else None

    @message_handler
    async def on_go(self, message: Go, context: MessageContext) -> Answer:
        """Run."""
        messages = [message.text]
        for called in range(self.calls):
            await self.ask()
            assert self.tool is not None
            found = await self.tool.run_json({"x": called}, CancellationToken())
            messages.append(str(found))
        await self.ask()
        return Answer("done")


def runner(ask: Ask, calls: int) -> Run:
    """Make a runtime with one kind of agents; a new agent for each run."""
    runtime: SingleThreadedAgentRuntime | None = None
    names = itertools.count()

    async def run() -> object:
        nonlocal runtime
        if runtime is None:
            runtime = SingleThreadedAgentRuntime()
            await Worker.register(runtime, "worker", lambda: Worker(ask, calls))
            runtime.start()
        return await runtime.send_message(Go("go"), AgentId("worker", str(next(names))))

    return run

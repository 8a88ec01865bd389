"""The contract of tools, as a check for any implementation."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, final

import attrs
import trio

from agentpool._budget.budget import Budget
from agentpool._checks import expect_arguments
from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import (
    OWNER_ID,
    AgentId,
    AgentMessage,
    Completion,
    CompletionRequest,
    ToolDefinition,
)
from agentpool._opening import once_async
from agentpool._outcome import AgentOutcome
from agentpool._spawn import SpawnConfig
from agentpool.abc import AgentContext, AgentInfo, Driver, OnDelta, Tool, ToolContext, ToolResult
from agentpool.testing._contract import Opener, is_a, open_one, promise
from agentpool.tools._registry import check_name

BAD_ARGUMENTS: Final = ("", "{", "null", "[]", '"text"', '{"a": NaN}', "\x00")
"""What models write instead of a JSON object."""


@final
@attrs.frozen(eq=False, repr=False)
class LoneContext(AgentContext):
    """A context without a pool: its messages are dropped, and there are no other agents."""

    @property
    def agent_id(self) -> AgentId:
        """Always 1: the agent is the first."""
        return 1

    @property
    def name(self) -> str:
        """The agent's name."""
        return "checker"

    @property
    def manifest(self) -> AgentManifest:
        """A manifest with only defaults."""
        return AgentManifest()

    @property
    def depth(self) -> int:
        """Always 0: the owner spawned the agent."""
        return 0

    @property
    def parent_id(self) -> AgentId:
        """Always 0: the owner spawned the agent."""
        return OWNER_ID

    @property
    def memory_scope(self) -> str:
        """A memory scope that no other agent has."""
        return "checker/1"

    def seconds(self) -> float:
        """Always 0: the pool opened just now."""
        return 0.0

    @property
    def budget(self) -> Budget | None:
        """Always ``None``: there is no budget."""
        return None

    async def complete(
        self, driver: Driver, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask the driver, without a budget."""
        return await driver.complete(request, on_delta=on_delta)

    async def send(
        self, recipient: AgentId, content: str, *, reply_to: int | None = None
    ) -> AgentMessage:
        """Drop the message."""
        await trio.lowlevel.checkpoint()
        return AgentMessage(self.agent_id, recipient, content, 1, reply_to)

    async def ask(self, recipient: AgentId, content: str) -> AgentMessage:
        """Answer with the question."""
        await trio.lowlevel.checkpoint()
        return AgentMessage(recipient, self.agent_id, content, 2, 1)

    async def receive_many(self) -> tuple[AgentMessage, ...]:
        """Return one message from the owner."""
        await trio.lowlevel.checkpoint()
        return (AgentMessage(0, self.agent_id, "hello", 1),)

    @once_async
    @asynccontextmanager
    async def without_slot(self, what: str) -> AsyncGenerator[None, None]:  # noqa: ARG002  # it is not watched
        """Do nothing: there is no slot."""
        await trio.lowlevel.checkpoint()
        yield

    def list_agents(self) -> tuple[AgentInfo, ...]:
        """Return an empty tuple."""
        return ()

    async def run_child(self, query: str | SpawnConfig, *, name: str | None = None) -> AgentOutcome:
        """Raise an error, since there is no pool.

        Raises:
            ToolError: Always.
        """
        await trio.lowlevel.checkpoint()
        raise ToolError(f"there is no pool in which {name or query!r} could run")


def lone_context(call_id: str = "call-1") -> ToolContext:
    """Make a context for calling a tool outside of any pool.

    Args:
        call_id: The id of the call.
    """
    expect_arguments(lone_context, locals())
    return ToolContext(LoneContext(), call_id)


async def check_tool(opener: Opener[Tool], *, arguments: str = "{}") -> None:
    """Check a tool: its definition, a good call, bad calls, and a cancelled one.

    Args:
        opener: Opens the tool.
        arguments: JSON of a call that succeeds.

    Raises:
        AssertionError: If the tool breaks its contract. The error says how.
    """
    expect_arguments(check_tool, locals())
    async with AsyncExitStack() as stack:
        tool = await open_one(opener, stack)
        promise(is_a(tool, Tool), f"a tool must be a Tool, got {tool!r}")
        _check_facts(tool)
        context = lone_context()
        good = await tool.run(arguments, context)
        _check_result(good, arguments)
        promise(not good.is_error, f"the call with {arguments} failed: {good.content}")
        for bad in BAD_ARGUMENTS:
            try:
                _check_result(await tool.run(bad, context), bad)
            except ToolError:
                continue
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(
                    f"run({bad!r}) must return a result or raise a ToolError, "
                    f"but it raised {error!r}"
                ) from error
        with trio.CancelScope() as scope:
            scope.cancel()
            await tool.run(arguments, context)
        promise(scope.cancelled_caught, "run() must have a checkpoint: a cancelled call completed")


def _check_facts(tool: Tool) -> None:
    definition = tool.definition
    promise(
        is_a(definition, ToolDefinition), f"definition must be a ToolDefinition, got {definition!r}"
    )
    check_name(definition.name)
    promise(definition == tool.definition, "definition must be the same every time")
    schema = definition.input_schema
    promise(
        schema.get("type") == "object", f"input_schema must be of type 'object', got {schema!r}"
    )
    json.dumps(dict(schema))
    capability, seconds = tool.capability, tool.timeout_seconds
    promise(
        capability is None or is_a(capability, Capability),
        f"capability must be a Capability or None, got {capability!r}",
    )
    promise(seconds is None or seconds > 0, f"timeout_seconds must be > 0 or None, got {seconds!r}")


def _check_result(result: ToolResult, arguments: str) -> None:
    promise(
        is_a(result, ToolResult),
        f"run() must return a ToolResult, got {result!r} for {arguments!r}",
    )
    promise(is_a(result.content, str), f"a result's content must be text, got {result.content!r}")

"""Tools that run on a node, for an agent that lives in the program.

The tools of one agent stay on one node, since they may keep something there. When that node is
lost, they are made anew on another.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Final, cast, final

import attrs
import trio

from agentpool._errors import ToolError, UsageError
from agentpool._loop.run import UNSURE
from agentpool._manifest.capability import Capability
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import CompletionRequest, ToolDefinition
from agentpool._scheduling.owner import look_on
from agentpool._scheduling.request_clock import waiting_for_turn
from agentpool._spawn import SpawnConfig
from agentpool.abc import (
    AgentContext,
    Completion,
    OnDelta,
    OnSent,
    OnUnknown,
    PrivacyTier,
    SendingDriver,
    Tool,
    ToolContext,
    ToolResult,
)
from agentpool.cluster._errors import NodeLostError
from agentpool.cluster._link import Link, Questioned
from agentpool.cluster._nodes import Nodes
from agentpool.cluster._work import (
    AgentFacts,
    Ask,
    OpenKit,
    Question,
    Reply,
    RunTool,
    ToolFacts,
    Work,
)
from agentpool.tools._registry import ToolRegistry

MAX_LISTED: Final = 256
"""Agents that a tool on a node can be told of: each call carries them."""


MOST_NODES: Final = 3
"""Nodes that may be lost, one after the other, while they make an agent its tools."""


def facts_of(agent: AgentContext) -> AgentFacts:
    """Return what a tool on a node may know about its agent."""
    others = agent.list_agents()
    return AgentFacts(
        agent.agent_id, agent.name, agent.manifest, agent.depth, agent.parent_id,
        agent.memory_scope, agent.seconds(), others if len(others) <= MAX_LISTED else None,
    )  # fmt: skip


@final
@attrs.define(eq=False, repr=False)
class _Lent(SendingDriver):
    """A driver of a tool, asked where the tool runs."""

    _link: Link
    _number: int
    _tier: PrivacyTier

    @property
    def context_window(self) -> int | None:
        """Unknown here."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """The agent's tier; the node has compared it with the driver's."""
        return self._tier

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Have the tool's driver answer.

        Raises:
            DriverError: What it failed with.

        Cancellation:
            The request ends at the provider as well.
        """
        work = Ask(self._number, request, streams=on_delta is not None)
        return cast("Completion", await self._link.do(work, hear=on_delta, on_sent=on_sent))


@final
class Desk(Questioned):
    """Answers what a tool asks, in the task of its call or beside it.

    Where the tool waits for nothing else, the call's own task does what is asked. So the agent
    is seen to wait, and a circle of such waits is seen as well.
    """

    def __init__(self, link: Link, agent: AgentContext, nursery: trio.Nursery) -> None:
        self._link = link
        self._agent = agent
        self._nursery = nursery
        # The slot, branch and call of the tool are in it. Who brings a question has none of them.
        self._context = copy_context()
        self._context.run(look_on)
        self._scopes: dict[int, trio.CancelScope] = {}
        self._leaves: dict[int, trio.Event] = {}
        self._own: tuple[Question, trio.CancelScope] | None = None
        self._stirred = trio.Event()
        self._closed = False

    def asked(self, question: Question) -> None:
        """Begin to answer."""
        if self._closed:
            error = UsageError("this call was cancelled; its agent does nothing for it any more")
            self._link.order(Reply(question.question, None, error))
            return
        self._scopes[question.question] = scope = trio.CancelScope()
        if question.is_sole:
            self._own = question, scope
            self._stirred.set()
            return
        answer = partial(self._answer, question, scope)
        self._context.run(self._nursery.start_soon, answer)

    def withdrawn(self, number: int) -> None:
        """Stop answering."""
        if (scope := self._scopes.get(number)) is not None:
            scope.cancel()

    def ended(self) -> None:
        """Stop answering at all: the call is over."""
        self._closed = True
        self._stirred.set()
        for scope in self._scopes.values():
            scope.cancel()

    async def attend(self, over: trio.Event) -> None:  # noqa: ASYNC910  # a call may be over already
        """Wait until the call is over, and answer what the tool itself waits for."""
        try:
            while not over.is_set():
                if self._own is None:
                    await self._stirred.wait()
                    self._stirred = trio.Event()
                else:
                    own, self._own = self._own, None
                    await self._answer(*own)
        finally:
            self._closed = True

    async def _answer(self, question: Question, scope: trio.CancelScope) -> None:  # noqa: ASYNC910  # what fails at once waits for nothing
        value: object = None
        error: Exception | None = None
        try:
            with scope:
                value = await self._act(question)
        except Exception as raised:  # noqa: BLE001  # the tool gets it, whatever it is
            error = raised
        finally:
            del self._scopes[question.question]
        self._link.order(Reply(question.question, value, error))

    async def _act(self, question: Question) -> object:  # noqa: PLR0911  # a line for each method
        agent = self._agent
        match question.method, question.arguments:
            case "send", (int(recipient), str(content), (int() | None) as reply_to):
                return await agent.send(recipient, content, reply_to=reply_to)
            case "ask", (int(recipient), str(content)):
                return await agent.ask(recipient, content)
            case "receive_many", ():
                return await agent.receive_many()
            case "run_child", ((str() | SpawnConfig()) as query, (str() | None) as name):
                return await agent.run_child(query, name=name)
            case "complete", (int(number), CompletionRequest() as request):
                lent = _Lent(self._link, number, agent.manifest.privacy)
                return await agent.complete(lent, request)
            case "leave_slot", (str(what),):
                left = trio.Event()
                self._leaves[question.question] = end = trio.Event()
                self._nursery.start_soon(self._wait_outside, what, left, end)
                await left.wait()
                return question.question
            case "take_slot", (int(number),):
                self._leaves.pop(number).set()
                await trio.lowlevel.checkpoint()
                return None
            case _:
                raise UsageError(f"a node asked for {question.method!r}, which is not known here")

    async def _wait_outside(self, what: str, left: trio.Event, end: trio.Event) -> None:
        async with self._agent.without_slot(what):
            left.set()
            await end.wait()


@final
class Kit:
    """The tools of one agent on the node where they are."""

    def __init__(self, nodes: Nodes, labels: Mapping[str, str]) -> None:
        self._nodes = nodes
        self._labels = labels
        self._opening = trio.Lock()
        self.link: Link | None = None
        self.number = 0

    async def open(self, agent: AgentContext) -> tuple[Link, tuple[ToolFacts, ...] | None]:
        """Return the node, and what its tools are if they had to be made."""
        async with self._opening:
            link = self.link
            if link is not None and link.lost is None:
                return link, None
            link = self._nodes.choose(self._labels)
            number = next(self._nodes.numbers)
            link.kits += 1
            try:
                found = await answer_for(agent, link, OpenKit(number, facts_of(agent)))
            except BaseException:
                link.close_kit(number)
                raise
            self.link, self.number = link, number
            # An agent that drops its tools tells nothing: they are done with when they are garbage.
            token = trio.lowlevel.current_trio_token()
            weakref.finalize(self, _close, token, link, number).atexit = False
            return link, cast("tuple[ToolFacts, ...]", found)


def _close(token: trio.lowlevel.TrioToken, link: Link, number: int) -> None:
    """Drop the tools of an agent that nothing has any more.

    A garbage collection calls it, in whatever thread that happens to be.
    """
    with contextlib.suppress(trio.RunFinishedError):
        token.run_sync_soon(link.close_kit, number)


async def answer_for(agent: AgentContext, link: Link, work: Work) -> object:
    """Have *work* done on behalf of an agent, and answer meanwhile what it asks of the agent.

    Raises:
        Exception: What it failed with.

    Cancellation:
        Nothing of it goes on, as far as anybody can know.
    """
    error: Exception | None = None
    value: object = None
    async with trio.open_nursery() as nursery:
        try:
            value = await link.do(work, questioned=Desk(link, agent, nursery))
        except Exception as raised:  # noqa: BLE001  # raised again below, in no group
            error = raised
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    return value


@final
@attrs.frozen(eq=False, repr=False)
class FarTool(Tool):
    """One tool on a node."""

    _kit: Kit
    _facts: ToolFacts

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model sees it."""
        return self._facts.definition

    @property
    def capability(self) -> Capability | None:
        """The grant that the agent needs. ``None``: no grant."""
        return self._facts.capability

    @property
    def timeout_seconds(self) -> float | None:
        """The time limit of one call. ``None``: as the manifest says."""
        return self._facts.timeout_seconds

    @property
    def needs_approval(self) -> bool:
        """Whether each call needs approval."""
        return self._facts.needs_approval

    @property
    def waits(self) -> bool:
        """Whether it waits for other agents."""
        return self._facts.waits

    @property
    def on_unknown(self) -> OnUnknown:
        """What to do with a call that may or may not have been done."""
        return self._facts.on_unknown

    async def run(self, arguments: str, context: ToolContext) -> ToolResult:
        """Run one call on the node; a tool that may run twice, again if the node is lost.

        Raises:
            ToolError: What the tool says, or that its node was lost in the middle of it.

        Cancellation:
            Nothing of the call goes on, as far as anybody can know.
        """
        while True:
            try:
                return await self._run_once(arguments, context)
            except NodeLostError as error:
                if self.on_unknown != "rerun":
                    raise ToolError(f"{error}; {UNSURE}") from error
                # Until then the lost node may still be at it.
                with waiting_for_turn():
                    await trio.sleep(error.retry_after_seconds or 0.0)

    async def _run_once(self, arguments: str, context: ToolContext) -> ToolResult:
        link, _ = await self._kit.open(context.agent)
        work = RunTool(
            self._kit.number, self.definition.name, arguments, context.call_id,
            context.idempotency_key, context.fence, facts_of(context.agent),
        )  # fmt: skip
        result = await answer_for(context.agent, link, work)
        return cast("ToolResult", result)


@final
@attrs.define(eq=False, repr=False)
class FarTools:
    """Makes each agent its tools, on the node that is chosen for it."""

    _nodes: Nodes
    _labels: Callable[[AgentManifest], Mapping[str, str]] | None

    async def __call__(self, context: AgentContext) -> ToolRegistry:
        """Make the tools of one agent.

        Raises:
            NodeLostError: If no node works, or it is lost meanwhile.
            Exception: Whatever the builder on the node failed with.
        """
        asked = self._labels
        labels: Mapping[str, str] = {} if asked is None else asked(context.manifest)
        kit = Kit(self._nodes, labels)
        for _ in range(MOST_NODES - 1):
            try:
                return await self._make(kit, context)
            except NodeLostError as error:
                await trio.sleep(error.retry_after_seconds or 0.0)
        return await self._make(kit, context)

    @staticmethod
    async def _make(kit: Kit, context: AgentContext) -> ToolRegistry:
        _, facts = await kit.open(context)
        return ToolRegistry([FarTool(kit, one) for one in facts or ()])

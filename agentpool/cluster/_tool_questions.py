"""Answers the questions that a tool on a node asks its agent during a call."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import Final, cast, final

import attrs
import trio

from agentpool._background import background
from agentpool._errors import UsageError
from agentpool._messages import CompletionRequest
from agentpool._pool.agent_context import count_others
from agentpool._scheduling.owner import look_on
from agentpool._spawn import SpawnConfig
from agentpool.abc import AgentContext, Completion, OnDelta, OnSent, PrivacyTier, SendingDriver
from agentpool.cluster._node_link import Link, Questioned
from agentpool.cluster._node_messages import AgentFacts, Ask, Question, Reply, Work

MAX_LISTED: Final = 256
"""The most agents that a tool on a node can list, since every call carries the list."""


def facts_of(agent: AgentContext) -> AgentFacts:
    """Return what a tool on a node may know about its agent."""
    # Of a thousand that run, each call would look at all.
    are_many = (count_others(agent) or 0) > MAX_LISTED
    return AgentFacts(
        agent.agent_id, agent.name, agent.manifest, agent.depth, agent.parent_id,
        agent.memory_scope, agent.seconds(), None if are_many else agent.list_agents(),
    )  # fmt: skip


@final
@attrs.define(eq=False, repr=False)
class _Lent(SendingDriver):
    """A tool's driver, which answers on the tool's node."""

    _link: Link
    _number: int
    _tier: PrivacyTier

    @property
    def context_window(self) -> int | None:
        """Always ``None``: unknown here."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """The agent's privacy tier, which the node has compared with that of the driver."""
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
            DriverError: What the driver raised.

        Cancellation:
            The request ends at the provider as well.
        """
        work = Ask(self._number, request, streams=on_delta is not None)
        return cast("Completion", await self._link.do(work, hear=on_delta, on_sent=on_sent))


@final
class Desk(Questioned):
    """Answers a tool's questions, in the task of the tool's call or in a separate task.

    If the tool waits for nothing else, the task of the call itself carries out the request. So the
    pool sees that the agent waits, and can find a circle of such waits.
    """

    def __init__(self, link: Link, agent: AgentContext, nursery: trio.Nursery) -> None:
        self._link = link
        self._agent = agent
        self._nursery = nursery
        # The slot, strand and call of the tool are in it. Who brings a question has none of them.
        self._context = copy_context()
        self._context.run(look_on)
        self._scopes: dict[int, trio.CancelScope] = {}
        self._leaves: dict[int, trio.Event] = {}
        self._own: tuple[Question, trio.CancelScope] | None = None
        self._stirred = trio.Event()
        self._closed = False

    def asked(self, question: Question) -> None:
        """Start answering a question."""
        if self._closed:
            error = UsageError("this call was cancelled, so its agent answers no more questions")
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
        """Stop answering a question."""
        if (scope := self._scopes.get(number)) is not None:
            scope.cancel()

    def ended(self) -> None:
        """Stop answering for good: the call has ended."""
        self._closed = True
        self._stirred.set()
        for scope in self._scopes.values():
            scope.cancel()

    async def attend(self, over: trio.Event) -> None:  # noqa: ASYNC910  # a call may be over already
        """Answer the questions that the tool itself waits for, until the call ends."""
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


async def answer_for(agent: AgentContext, link: Link, work: Work) -> object:
    """Have a node do *work* for an agent, and meanwhile answer its questions to the agent.

    Raises:
        Exception: What the work raised.

    Cancellation:
        The work has ended completely, as far as this program can know.
    """
    async with background() as nursery:
        return await link.do(work, questioned=Desk(link, agent, nursery))

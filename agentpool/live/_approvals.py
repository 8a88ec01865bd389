"""Keeps tool calls that wait for a person, and takes the first decision about each call."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from inspect import isawaitable
from typing import final

import attrs
import outcome
import trio

from agentpool._approval import ApprovalRequest, Approver, Decision
from agentpool._base import Shown, Unique
from agentpool._checks import expect_arguments
from agentpool._opening import once


@final
@attrs.frozen
class PendingCall:
    """A call that waits for a decision."""

    number: int
    """The number for ``decide``: 1, 2, 3, …"""
    request: ApprovalRequest
    """The call, and the agent that wants it."""


@final
@attrs.define(eq=False, repr=False)
class ApprovalDesk(Unique, Shown):
    """Keeps calls until a person decides: pass ``desk.ask`` as ``open_pool(approve=…)``.

    Several people may watch and decide. For each call, the first decision counts.
    """

    _waiting: dict[int, tuple[ApprovalRequest, trio.lowlevel.Task]] = attrs.field(
        init=False, factory=dict[int, tuple[ApprovalRequest, trio.lowlevel.Task]]
    )
    _last: int = attrs.field(init=False, default=0)
    _told: list[Callable[[], object]] = attrs.field(init=False, factory=list[Callable[[], object]])

    @once
    @contextmanager
    def tell(self, changed: Callable[[], object]) -> Generator[None]:
        """Call *changed* whenever a call begins or stops waiting, inside the block.

        Args:
            changed: The function to call. It must not block.
        """
        expect_arguments(ApprovalDesk.tell, locals())
        self._told.append(changed)
        try:
            yield
        finally:
            self._told.remove(changed)

    async def ask(self, request: ApprovalRequest) -> Decision:
        """Wait for a decision about *request*, and return the decision.

        Cancellation:
            The call can no longer be decided.
        """
        expect_arguments(ApprovalDesk.ask, locals())
        self._last = number = self._last + 1
        self._waiting[number] = (request, trio.lowlevel.current_task())
        self._changed()

        def give_up(_: object) -> trio.lowlevel.Abort:
            # Here and not in a finally block: whoever decides between the cancellation and
            # the end of this task would be told that the decision counts.
            del self._waiting[number]
            self._changed()
            return trio.lowlevel.Abort.SUCCEEDED

        decision: Decision = await trio.lowlevel.wait_task_rescheduled(give_up)
        return decision

    @property
    def pending(self) -> tuple[PendingCall, ...]:
        """Calls that wait, oldest first."""
        return tuple(PendingCall(number, of[0]) for number, of in self._waiting.items())

    def decide(self, number: int, decision: Decision) -> bool:
        """Decide about a call. Return whether the call still waited. If not, nothing changes."""
        expect_arguments(ApprovalDesk.decide, locals())
        request_and_task = self._waiting.pop(number, None)
        if request_and_task is None:
            return False
        trio.lowlevel.reschedule(request_and_task[1], outcome.Value(decision))
        self._changed()
        return True

    def _changed(self) -> None:
        for changed in tuple(self._told):
            changed()


def first_decision(*approvers: Approver) -> Approver:
    """Return an approver that asks all *approvers* in parallel and takes the first decision."""
    expect_arguments(first_decision, locals())

    async def ask(request: ApprovalRequest) -> Decision:
        decisions: list[Decision] = []

        async def ask_one(approver: Approver) -> None:  # noqa: ASYNC910  # one that is not async does not wait
            said = approver(request)
            decisions.append(await said if isawaitable(said) else said)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for approver in approvers:
                nursery.start_soon(ask_one, approver)
        return decisions[0]

    return ask

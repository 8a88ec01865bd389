"""Calls that wait for the first decision."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from agentpool.drivers import ToolCall
from agentpool.live import ApprovalDesk, first_decision
from agentpool.tools import ApprovalRequest, Approved, Decision, Denied

REQUEST = ApprovalRequest(1, "a", ToolCall("c", "erase", "{}"), None)


async def test_the_first_decision_counts() -> None:
    """The second one is told that it does not."""
    desk = ApprovalDesk()
    told: list[int] = []
    got: list[Decision] = []

    async def ask() -> None:
        got.append(await desk.ask(REQUEST))

    with desk.tell(lambda: told.append(len(desk.pending))):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            (call,) = desk.pending
            assert call.request is REQUEST
            assert desk.decide(call.number, Denied("no"))
            assert not desk.decide(call.number, Approved())
    assert got == [Denied("no")]
    assert told == [1, 0]


async def test_a_page_that_has_ended_is_told_nothing() -> None:
    """A desk may outlive many pools, each with a page."""
    desk = ApprovalDesk()
    told: list[str] = []
    async with trio.open_nursery() as nursery:
        with desk.tell(lambda: told.append("one")), desk.tell(lambda: told.append("two")):
            nursery.start_soon(desk.ask, REQUEST)
            await wait_all_tasks_blocked()
        assert told == ["one", "two"]
        assert desk.decide(1, Approved())
    assert told == ["one", "two"]


async def test_a_call_that_was_given_up_cannot_be_decided() -> None:
    """Not even before its task has run again: the decision would be lost."""
    desk = ApprovalDesk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.ask, REQUEST)
        await wait_all_tasks_blocked()
        (call,) = desk.pending
        nursery.cancel_scope.cancel()
        assert not desk.decide(call.number, Approved())
    assert desk.pending == ()


async def test_a_decision_is_not_lost_to_a_cancellation() -> None:
    """Once it was taken, the call has it."""
    desk, got = ApprovalDesk(), list[Decision]()

    async def ask() -> None:
        got.append(await desk.ask(REQUEST))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert desk.decide(1, Approved())
        nursery.cancel_scope.cancel()
    assert got == [Approved()]


@pytest.mark.parametrize("which", [0, 1])
async def test_of_several_approvers_the_first_one_decides(which: int) -> None:
    """The others are not asked any more."""
    desks = [ApprovalDesk(), ApprovalDesk()]
    got: list[Decision] = []

    async def ask() -> None:
        said = first_decision(desks[0].ask, desks[1].ask)(REQUEST)
        assert not isinstance(said, Approved | Denied)
        got.append(await said)  # type: ignore[misc]  # one of ours is async

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        assert desks[which].decide(1, Approved(by=str(which)))
    assert got == [Approved(by=str(which))]
    assert desks[0].pending == desks[1].pending == ()


async def test_an_approver_need_not_wait() -> None:
    """One that answers at once answers for all."""
    said = first_decision(ApprovalDesk().ask, lambda _: Denied("never"))(REQUEST)
    assert await said == Denied("never")  # type: ignore[misc]  # one of ours is async

"""One agent's inbox: bounded, in order, and nothing in it is lost."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from agentpool import AgentGoneError, AgentMessage, InboxFullError
from agentpool._messaging.inbox import Inbox


def letter(number: int) -> AgentMessage:
    """Return a message to agent 1."""
    return AgentMessage(2, 1, f"letter {number}", number)


async def send(inbox: Inbox, message: AgentMessage) -> None:
    """Put a message in as the router does, waiting for a turn."""
    try:
        inbox.send_nowait(message)
    except InboxFullError:
        await inbox.wait_turn()
        inbox.take_turn()
        inbox.send_nowait(message, has_turn=True)
        inbox.wake_senders()


def numbers(messages: tuple[AgentMessage, ...]) -> list[int]:
    """Return the numbers of messages."""
    return [message.message_id for message in messages]


async def test_messages_come_out_in_the_order_they_went_in() -> None:
    """All that wait are taken in one step: the fast path."""
    inbox = Inbox(1, 3)
    for number in (1, 2, 3):
        inbox.send_nowait(letter(number))
    assert inbox.waiting == 3
    assert numbers(await inbox.receive_many()) == [1, 2, 3]
    assert inbox.waiting == 0
    assert inbox.receive_many_nowait() == ()


async def test_full_inbox_refuses_or_makes_wait() -> None:
    """Two calls for two wishes; whoever does not want to wait is told why."""
    inbox = Inbox(1, 1)
    inbox.send_nowait(letter(1))
    with pytest.raises(InboxFullError, match=r"inbox of agent 1 is full \(1 messages\)") as info:
        inbox.send_nowait(letter(2))
    assert info.value.recipient == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, inbox, letter(3))
        await wait_all_tasks_blocked()
        assert numbers(inbox.receive_many_nowait()) == [1]
    assert numbers(inbox.receive_many_nowait()) == [3]


@pytest.mark.parametrize("end", ["message", "restored", "closed"])
async def test_a_reader_that_was_woken_is_counted_until_it_runs(end: str) -> None:
    """While one is under way the pool does not stand still; counted for ever, it never would."""
    inbox = Inbox(1, 1)
    got: list[AgentMessage] = []

    async def read() -> None:
        with suppress(AgentGoneError):
            got.extend(await inbox.receive_many())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        assert inbox.book.woken == 0
        if end == "message":
            inbox.send_nowait(letter(1))
        elif end == "restored":
            inbox.restore([letter(1)])
        else:
            inbox.close()
        assert inbox.book.woken == 1
    assert inbox.book.woken == 0
    assert len(got) == (end != "closed")


async def test_waiting_senders_come_before_later_ones() -> None:
    """Room that becomes free belongs to whoever waited for it, so order is kept."""
    inbox = Inbox(1, 1)
    inbox.send_nowait(letter(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, inbox, letter(2))
        await wait_all_tasks_blocked()
        assert len(inbox.receive_many_nowait()) == 1
        with pytest.raises(InboxFullError):
            inbox.send_nowait(letter(3))
    assert numbers(inbox.receive_many_nowait()) == [2]


async def test_receiver_waits_for_the_first_message() -> None:
    """And then takes what else has come."""
    inbox = Inbox(1, 8)
    taken: list[int] = []

    async def receive() -> None:
        taken.extend(numbers(await inbox.receive_many()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        for number in (1, 2, 3):
            inbox.send_nowait(letter(number))
    assert taken == [1, 2, 3]


async def test_closing_fails_waiting_senders_and_returns_the_rest() -> None:
    """Whoever waited for room was not accepted: to close is no reason to accept it now."""
    inbox = Inbox(1, 1)
    inbox.send_nowait(letter(1))
    errors: list[str] = []

    async def try_to_send(number: int) -> None:
        with pytest.raises(AgentGoneError) as caught:
            await send(inbox, letter(number))
        errors.append(str(caught.value))

    async with trio.open_nursery() as nursery:
        for number in (2, 3):
            nursery.start_soon(try_to_send, number)
        await wait_all_tasks_blocked()
        assert numbers(inbox.close()) == [1]
    assert errors == ["agent 1 has ended; its inbox is closed"] * 2


async def test_a_closed_inbox_takes_nothing() -> None:
    """Whoever still holds it is told that its owner has ended."""
    inbox = Inbox(1, 1)
    assert inbox.close() == ()
    with pytest.raises(AgentGoneError, match="agent 1 has ended"):
        inbox.send_nowait(letter(3))
    with pytest.raises(AgentGoneError):
        await inbox.receive_many()


async def test_a_cancelled_send_was_not_sent(autojump_clock: MockClock) -> None:
    """``Cancelled`` out of a send means that nobody will receive it."""
    inbox = Inbox(1, 1)
    inbox.send_nowait(letter(2))
    with trio.move_on_after(1) as scope:
        await send(inbox, letter(3))
    assert scope.cancelled_caught
    assert numbers(inbox.receive_many_nowait()) == [2]


async def test_a_cancelled_receive_took_nothing(autojump_clock: MockClock) -> None:
    """``Cancelled`` out of a receive means that the messages are still there."""
    inbox = Inbox(1, 1)
    with trio.move_on_after(1) as scope:
        await inbox.receive_many()
    assert scope.cancelled_caught
    inbox.send_nowait(letter(1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.receive_many()
    assert scope.cancelled_caught
    assert numbers(inbox.receive_many_nowait()) == [1]


async def test_every_call_that_awaits_is_a_checkpoint() -> None:
    """Also the ones that have nothing to wait for: nobody starves the others."""
    inbox = Inbox(1, 2)
    inbox.send_nowait(letter(1))
    with assert_checkpoints():
        await inbox.receive_many()


async def test_a_message_wakes_one_reader_and_takes_no_place_of_another() -> None:
    """Two readers are handed a message each; the next one takes the only place."""
    inbox = Inbox(1, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.receive_many)
        nursery.start_soon(inbox.receive_many)
        await wait_all_tasks_blocked()
        for number in range(3):
            inbox.send_nowait(letter(number))
        with pytest.raises(InboxFullError):
            inbox.send_nowait(letter(3))
        # The first reader takes all of it, and so the second one waits again.
        await wait_all_tasks_blocked()
        inbox.send_nowait(letter(4))

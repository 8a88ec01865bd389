"""What a gate is told about tokens is a whole number, or it is refused and nothing is counted."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import MockClock

from agentpool import UsageError
from agentpool.drivers import RequestGate

WRONG: tuple[object, ...] = (-1, -1000, 1.5, math.nan, "x", True, [])


@pytest.mark.parametrize("tokens", [*WRONG, None], ids=repr)
async def test_a_request_of_a_wrong_size_is_refused_before_it_counts(tokens: object) -> None:
    """A negative one counted as none, half a token as half, and text broke in the middle."""
    gate = RequestGate(tokens_per_minute=100, requests_per_minute=5)
    with pytest.raises(UsageError, match="tokens must be a whole number >= 0, got "):
        async with gate.request(tokens):  # type: ignore[arg-type]  # that is the point
            pass  # pragma: no cover  # it is refused
    now = gate.statistics()
    assert (now.in_flight, now.answered, now.requests_last_minute, now.tokens_last_minute) == (
        (0, 0, 0, 0)
    )  # fmt: skip


@pytest.mark.parametrize("used", WRONG, ids=repr)
async def test_used_tokens_of_a_wrong_kind_are_refused_where_they_are_set(
    used: object, autojump_clock: MockClock
) -> None:
    """A negative number opened the gate for others; text broke the caller at the block's end."""
    gate = RequestGate(tokens_per_minute=100)
    async with gate.request(50) as ticket, trio.open_nursery() as nursery:

        async def beside() -> None:
            with trio.move_on_after(1):
                async with gate.request(80):
                    raise AssertionError("it was let in")  # pragma: no cover

        nursery.start_soon(beside)
        await trio.sleep(0.5)
        with pytest.raises(UsageError, match="used_tokens must be a whole number >= 0, got "):
            ticket.used_tokens = used  # type: ignore[assignment]  # that is the point
        assert ticket.used_tokens is None
    now = gate.statistics()
    assert (now.in_flight, now.waiting, now.answered, now.tokens_last_minute) == (0, 0, 1, 50)


async def test_no_tokens_are_a_number_of_tokens() -> None:
    """An answer from a cache takes none."""
    gate = RequestGate(tokens_per_minute=100)
    async with gate.request(50) as ticket:
        ticket.used_tokens = 0
    async with gate.request(0) as ticket:
        ticket.used_tokens = None
    assert gate.statistics().tokens_last_minute == 0

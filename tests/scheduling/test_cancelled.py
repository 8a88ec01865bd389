"""``is_cancelled`` says what the next checkpoint would do, and lets nobody run."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agentpool._scheduling.cancelled import is_cancelled

SCOPES: Final = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=5)
"""Scopes around a task, from outside: whether each shields, is cancelled, and is so by a child."""


async def _would_raise() -> bool:
    try:
        await trio.lowlevel.checkpoint_if_cancelled()
    except trio.Cancelled:  # noqa: ASYNC103  # it is what is asked for
        return True  # noqa: ASYNC104
    return False


@given(scopes=SCOPES)
def test_it_says_what_the_next_checkpoint_does(scopes: list[tuple[bool, bool, bool]]) -> None:
    """However many scopes are around the task, whichever of them shields or is cancelled."""
    said: list[tuple[bool, bool]] = []

    async def look() -> None:
        with ExitStack() as stack:
            made = [
                stack.enter_context(trio.CancelScope(shield=shields)) for shields, _, _ in scopes
            ]
            said.append((is_cancelled(), await _would_raise()))
            for scope, (_, is_cut, _) in zip(made, scopes, strict=True):
                if is_cut:
                    scope.cancel()
            said.append((is_cancelled(), await _would_raise()))
            for scope, (_, _, turns) in zip(made, scopes, strict=True):
                scope.shield = scope.shield is not turns
            said.append((is_cancelled(), await _would_raise()))

    trio.run(look)
    assert all(ours == theirs for ours, theirs in said)


async def test_nobody_runs_meanwhile(autojump_clock: MockClock) -> None:
    """It is asked in the middle of a step that nothing may come into."""
    steps: list[str] = []

    async def other() -> None:  # noqa: ASYNC124  # a task
        steps.append("other")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            scope.cancel()
            assert is_cancelled()
            assert is_cancelled()
            steps.append("asked")
    assert steps == ["asked", "other"]
    assert not is_cancelled()

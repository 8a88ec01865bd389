"""Who waits for ever: the rules alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentpool._scheduling.waits import (
    Wait,
    WaitKind,
    deadlock_cycle,
    describe_deadlock,
    find_deadlocked,
)


def test_a_circle_waits_for_ever_and_is_named_from_its_smallest_member() -> None:
    """The message is the one thing that a person has to find the fault with."""
    waits = {
        1: [Wait.answer_of(2)],
        2: [Wait.end_of(3, "editor")],
        3: [Wait.answer_of(1)],
    }
    stuck = find_deadlocked(waits, others_can_send=True)
    assert stuck == {1, 2, 3}
    assert deadlock_cycle(1, waits, stuck) == (1, 2, 3)
    names = {1: "planner", 2: "critic", 3: "editor"}
    assert describe_deadlock((1, 2, 3), waits, names, cycle=True) == (
        "1 (planner) asks 2 (critic), which joins 3 (editor), which asks 1 (planner)"
    )


def test_whoever_waits_for_the_circle_is_stuck_as_well() -> None:
    """It cannot go on before they do; the circle is named without it."""
    waits = {1: [Wait.end_of(2, "b")], 2: [Wait.answer_of(3)], 3: [Wait.answer_of(2)]}
    stuck = find_deadlocked(waits, others_can_send=False)
    assert stuck == {1, 2, 3}
    assert deadlock_cycle(1, waits, stuck) == (2, 3)


def test_a_wait_for_somebody_who_runs_can_end() -> None:
    """An agent that is not among the waiting ones goes on by itself."""
    waits = {1: [Wait.answer_of(2)], 3: [Wait.end_of(1, "a")]}
    assert not find_deadlocked(waits, others_can_send=False)


def test_one_free_branch_is_enough() -> None:
    """An agent with several tools at work goes on when one of them can."""
    waits = {1: [Wait.answer_of(2), Wait.other("a retry")], 2: [Wait.answer_of(1)]}
    assert not find_deadlocked(waits, others_can_send=False)


def test_a_message_can_come_from_anybody_who_can_go_on() -> None:
    """Agent 2 waits for a timer; when it goes on, it can write to agent 1."""
    waits = {1: [Wait.message()], 2: [Wait.other("a retry")]}
    assert not find_deadlocked(waits, others_can_send=False)
    assert find_deadlocked({1: [Wait.message()]}, others_can_send=False) == {1}
    assert not find_deadlocked({1: [Wait.message()]}, others_can_send=True)


def test_a_quiet_pool_is_described_agent_by_agent() -> None:
    """There is no circle to name: everybody waits for a message, or for one who does."""
    waits = {1: [Wait.message()], 2: [Wait.end_of(1, "a")]}
    stuck = find_deadlocked(waits, others_can_send=False)
    assert deadlock_cycle(2, waits, stuck) == ()
    assert describe_deadlock((1, 2), waits, {1: "a", 2: "b"}, cycle=False) == (
        "1 (a) waits for a message, 2 (b) joins 1 (a), and nobody is left who could end that"
    )


a_wait = st.builds(
    Wait,
    st.sampled_from(WaitKind),
    st.one_of(st.none(), st.integers(1, 6)),
).filter(lambda wait: (wait.target is None) == (wait.kind in {WaitKind.MESSAGE, WaitKind.OTHER}))


@given(
    waits=st.dictionaries(st.integers(1, 6), st.lists(a_wait, min_size=1, max_size=3)),
    others_can_send=st.booleans(),
)
def test_nobody_who_can_go_on_is_called_stuck(
    waits: dict[int, list[Wait]], *, others_can_send: bool
) -> None:
    """Never a false alarm: no stuck agent has a branch that anybody free could end."""
    stuck = find_deadlocked(waits, others_can_send=others_can_send)
    free_sender = others_can_send or bool(set(waits) - stuck)
    for agent_id in stuck:
        for wait in waits[agent_id]:
            assert wait.kind is not WaitKind.OTHER
            assert wait.kind is not WaitKind.MESSAGE or not free_sender
            assert wait.target is None or wait.target in stuck


@given(
    waits=st.dictionaries(st.integers(1, 6), st.lists(a_wait, min_size=1, max_size=3)),
    others_can_send=st.booleans(),
)
def test_whoever_is_not_stuck_can_go_on_in_some_order(
    waits: dict[int, list[Wait]], *, others_can_send: bool
) -> None:
    """Nobody is missed: those not called stuck can really go on, one after the other."""
    stuck = find_deadlocked(waits, others_can_send=others_can_send)
    left = set(waits) - stuck
    can_send = others_can_send
    while left:
        goes_on = {
            agent_id
            for agent_id in left
            if any(
                wait.kind is WaitKind.OTHER
                or (wait.kind is WaitKind.MESSAGE and can_send)
                or (wait.target is not None and wait.target not in left | stuck)
                for wait in waits[agent_id]
            )
        }
        assert goes_on
        can_send = True
        left -= goes_on

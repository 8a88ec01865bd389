"""Who waits for ever: the rules alone."""

from __future__ import annotations

from functools import partial

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


def test_one_free_strand_is_enough() -> None:
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
        "1 (a) waits for a message, 2 (b) joins 1 (a), and no running agent can unblock them"
    )


def test_who_reads_a_map_is_described_by_what_its_source_waits_for() -> None:
    """The map waits for the reader's own source, which is nothing to tell it."""
    waits = {1: [Wait.any_of((), "a map", lambda: False, lambda: 1), Wait.message()]}
    assert find_deadlocked(waits, others_can_send=False) == {1}
    assert deadlock_cycle(1, waits, frozenset({1})) == ()
    assert describe_deadlock((1,), waits, {1: "a"}, cycle=False) == (
        "1 (a) waits for a message, and no running agent can unblock it"
    )


def a_wait_of(kind: WaitKind) -> st.SearchStrategy[Wait]:
    """Return waits of one kind, for some of six agents and the owner."""
    ids = st.integers(0, 6)
    if kind in {WaitKind.MESSAGE, WaitKind.EVENT, WaitKind.OTHER}:
        return st.just(Wait(kind))
    if kind in {WaitKind.ANY, WaitKind.ALL}:
        perhaps = st.sampled_from([None, lambda: False, lambda: True])
        feeder = st.sampled_from([None, lambda: None, *(partial(int, one) for one in range(7))])
        return st.builds(
            lambda group, fed, by: Wait(kind, group=group, is_fed=fed, fed_by=by),
            st.lists(ids, min_size=1, max_size=3, unique=True).map(tuple),
            perhaps,
            feeder if kind is WaitKind.ANY else st.none(),
        )
    return st.builds(Wait, st.just(kind), ids)


a_wait = st.sampled_from(WaitKind).flatmap(a_wait_of)
some_waits = st.dictionaries(st.integers(0, 6), st.lists(a_wait, min_size=1, max_size=3))


def can_end(wait: Wait, stuck: set[int], *, can_send: bool) -> bool:
    """Say by the rules, one wait at a time, whether it can end while those are stuck."""
    if wait.ends_by_itself:
        return True
    if wait.kind in {WaitKind.MESSAGE, WaitKind.EVENT}:
        return can_send
    free = [target not in stuck for target in wait.agent_ids]
    return all(free) if wait.kind is WaitKind.ALL else any(free)


@given(waits=some_waits, others_can_send=st.booleans())
def test_who_waits_for_ever_is_what_is_left_of_the_rules(
    waits: dict[int, list[Wait]], *, others_can_send: bool
) -> None:
    """Applied as often as they change anything, in whatever time that takes."""
    stuck, before = set(waits), -1
    can_send = others_can_send
    while len(stuck) != before:
        before = len(stuck)
        for agent_id in sorted(stuck):
            if any(can_end(wait, stuck, can_send=can_send) for wait in waits[agent_id]):
                stuck.discard(agent_id)
                can_send = True
    found = find_deadlocked(waits, others_can_send=others_can_send)
    assert found == stuck
    for first in found:
        cycle = deadlock_cycle(first, waits, found)
        for agent_id, after in zip(cycle, (*cycle[1:], *cycle[:1]), strict=True):
            assert any(after in wait.agent_ids for wait in waits[agent_id])


def test_a_race_goes_on_when_one_of_its_agents_can() -> None:
    """And whoever waits for all of them does not."""
    waits = {1: [Wait.any_of((2, 3), "a race")], 2: [Wait.answer_of(1)]}
    assert not find_deadlocked(waits, others_can_send=True)
    waits = {1: [Wait.all_of((2, 3), "all agents")], 2: [Wait.answer_of(1)]}
    stuck = find_deadlocked(waits, others_can_send=True)
    assert stuck == {1, 2}
    assert describe_deadlock(
        deadlock_cycle(1, waits, stuck), waits, {1: "a", 2: "b"}, cycle=True
    ) == ("1 (a) waits until all have ended, among them 2 (b), which asks 1 (a)")


def test_a_circle_is_found_behind_a_dead_end() -> None:
    """The first agent of a race waits for a message; the circle is through the second."""
    waits = {1: [Wait.any_of((2, 3), "a race")], 2: [Wait.message()], 3: [Wait.answer_of(1)]}
    stuck = find_deadlocked(waits, others_can_send=False)
    assert stuck == {1, 2, 3}
    assert deadlock_cycle(1, waits, stuck) == (1, 3)


def test_a_second_way_to_a_dead_end_is_no_circle() -> None:
    """Two ways lead to it, and neither is a circle: only what comes back to itself is one."""
    waits = {
        1: [Wait.all_of((2, 3, 4), "all agents")],
        2: [Wait.message()],
        3: [Wait.end_of(2, "b")],
        4: [Wait.answer_of(1)],
    }
    stuck = find_deadlocked(waits, others_can_send=False)
    assert stuck == {1, 2, 3, 4}
    assert deadlock_cycle(3, waits, stuck) == ()
    assert deadlock_cycle(1, waits, stuck) == (1, 4)


def test_many_ways_to_one_dead_end_are_not_all_gone() -> None:
    """Twice as many with each layer: a search of all of them would take for ever."""
    looked_at: list[int] = []

    class Noting(dict[int, list[Wait]]):
        """Waits that note who was looked at."""

        def get(self, agent_id: int, default: object = None) -> list[Wait]:  # noqa: ARG002  # as of a dict
            """Note it."""
            looked_at.append(agent_id)
            return self[agent_id]

    layers = 6
    waits = Noting(
        {
            n: [Wait.all_of((n // 2 * 2 + 2, n // 2 * 2 + 3), "all agents")]
            for n in range(2 * layers)
        }
    )
    waits.update({2 * layers: [Wait.message()], 2 * layers + 1: [Wait.message()]})
    stuck = find_deadlocked(waits, others_can_send=False)
    assert stuck == waits.keys()
    looked_at.clear()
    assert deadlock_cycle(0, waits, stuck) == ()
    assert sorted(looked_at) == [0, *range(2, 2 * layers + 2)]


def test_a_deadlock_of_many_is_told_in_a_few_words() -> None:
    """A model that is told of it need not read a thousand names."""
    waits = {agent_id: [Wait.message()] for agent_id in range(1, 1001)}
    text = describe_deadlock(range(1, 1001), waits, {}, cycle=False)
    assert "10 (?) waits for a message, 990 more wait as well" in text

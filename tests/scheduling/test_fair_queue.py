"""Whose turn it is: the rules alone."""

from __future__ import annotations

import math
from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool._scheduling.fair_queue import PLACES_PER_LEVEL, SPARE_GHOSTS, FairQueue, Share


@attrs.define(eq=False)
class Item:
    """One who waits."""

    name: str = ""
    group: str = ""
    cost: int = 1
    gone: bool = False


def is_gone(item: Item) -> bool:
    """Return whether it was withdrawn."""
    return item.gone


def queue_of(*shares: tuple[str, int, int]) -> tuple[FairQueue[Item], list[Item]]:
    """Return a queue with items of these groups, weights and priorities, and the items."""
    queue = FairQueue[Item](is_gone)
    items = [Item(str(number), group) for number, (group, _, _) in enumerate(shares)]
    for item, share in zip(items, shares, strict=True):
        queue.push(item, Share(*share))
    return queue, items


def names_of(queue: FairQueue[Item]) -> str:
    """Return the names in the order of their turns."""
    names: list[str] = []
    while queue:
        head = queue.head()
        item = queue.pop()
        assert item is head
        names.append(item.name)
    return " ".join(names)


def groups_of(queue: FairQueue[Item]) -> str:
    """Return the groups in the order of their turns."""
    groups = ""
    while queue:
        groups += queue.pop().group
    return groups


def test_one_group_is_served_in_order() -> None:
    """Who says nothing is served first come, first served."""
    queue, _ = queue_of(*[("", 1, 0)] * 5)
    assert len(queue) == 5
    assert names_of(queue) == "0 1 2 3 4"


def test_groups_take_turns_by_their_weights() -> None:
    """Ten of one group are not kept behind a thousand of another."""
    queue, _ = queue_of(*[("a", 3, 0)] * 8, *[("b", 1, 0)] * 4)
    assert groups_of(queue) == "aaabaaabaabb"


def test_a_group_that_has_gone_leaves_its_turn_to_the_next() -> None:
    """And not to the one behind that."""
    queue, _ = queue_of(("a", 1, 0), ("b", 1, 0), ("b", 1, 0), ("c", 1, 0), ("c", 1, 0))
    assert groups_of(queue) == "abcbc"


def test_a_group_that_comes_late_waits_for_one_turn_of_each() -> None:
    """It is last in the circle, however long the others have waited."""
    queue, _ = queue_of(*[("a", 2, 0)] * 9, *[("b", 1, 0)] * 9)
    assert queue.pop().group == "a"
    queue.push(Item(group="c"), Share("c"))
    assert groups_of(queue).startswith("abc")


def test_the_newest_item_says_the_weight() -> None:
    """So a group's part can be changed while it waits."""
    queue, _ = queue_of(("a", 9, 0), ("a", 9, 0), ("a", 1, 0), ("b", 1, 0), ("a", 2, 0))
    # The turn that has begun is worth what it was worth then.
    assert groups_of(queue) == "aaaab"


def test_a_priority_moves_within_the_group_and_past_no_other() -> None:
    """Whoever calls himself urgent takes nothing from other groups."""
    queue, _ = queue_of(*[("a", 1, 0)] * 3, ("b", 1, 0), ("b", 1, 0), ("a", 1, 5), ("a", 1, -1))
    assert names_of(queue) == "5 3 0 4 1 2 6"


def test_nobody_is_overtaken_for_ever() -> None:
    """Ageing: after a hundred of one level more, the one who waits is first."""
    queue, _ = queue_of(("", 1, 0))
    for _ in range(PLACES_PER_LEVEL):
        queue.push(Item("urgent"), Share(priority=1))
    served = [queue.pop().name for _ in range(PLACES_PER_LEVEL + 1)]
    assert served.index("0") == PLACES_PER_LEVEL - 1


def test_costs_are_what_is_shared() -> None:
    """Of two groups of one weight, the one with large items has fewer of them."""
    queue = FairQueue[Item](is_gone, lambda item: item.cost)
    for _ in range(10):
        queue.push(Item(group="l", cost=9), Share("l"))
        queue.push(Item(group="s", cost=3), Share("s"))
    assert groups_of(queue) == "lssslssslssslsllllll"


def test_a_queue_that_was_empty_has_forgotten_what_was_dear() -> None:
    """A turn is worth what is dearest of those that wait, and not of those that waited once."""
    queue = FairQueue[Item](is_gone, lambda item: item.cost)
    for _ in range(3):
        queue.push(Item("-", cost=9))
    assert names_of(queue) == "- - -"
    for group in "abab":
        queue.push(Item(group=group), Share(group))
    assert groups_of(queue) == "abab"


def test_a_dear_item_that_comes_in_front_waits_for_its_turn() -> None:
    """A priority changes who is next, and the turn that was left is too small for it."""
    queue = FairQueue[Item](is_gone, lambda item: item.cost)
    for name in "xy":
        queue.push(Item(name, cost=1), Share("a"))
    queue.push(Item("b", cost=1), Share("b"))
    queue.push(Item("dear", cost=50), Share("a", priority=1))
    assert queue.head().name == "b"
    assert names_of(queue) == "b dear x y"


def test_withdrawn_items_take_no_turn() -> None:
    """A group is not charged for who has gone."""
    queue, items = queue_of(*[("a", 1, 0)] * 3, *[("b", 1, 0)] * 2)
    for item in (items[0], items[3]):
        item.gone = True
        queue.note_gone()
    assert len(queue) == 3
    assert names_of(queue) == "1 4 2"


def test_withdrawn_items_do_not_pile_up() -> None:
    """Behind one who never starts, a thousand may come and go."""
    queue = FairQueue[Item](is_gone)
    first = Item("first")
    queue.push(first)
    for number in range(1000):
        item = Item()
        queue.push(item, Share(str(number % 7), priority=number % 3))
        item.gone = True
        queue.note_gone()
    assert len(queue) == 1
    assert queue._ghosts <= SPARE_GHOSTS + 1
    assert len(queue._groups) < 2 * SPARE_GHOSTS
    assert queue.pop() is first
    assert not queue


def test_the_turn_passes_on_when_a_whole_group_is_withdrawn() -> None:
    """The group whose turn it was has nobody left."""
    queue, items = queue_of(*[("a", 1, 0)] * 90, ("b", 1, 0))
    for item in items[:90]:
        item.gone = True
        queue.note_gone()
    assert queue.head() is items[90]


def test_a_withdrawn_group_that_is_swept_out_hands_its_turn_on_whole() -> None:
    """Whoever is next has all of its own turn."""
    crowd = [("a", 1, 0)] * (SPARE_GHOSTS + 4)
    queue, items = queue_of(*crowd, ("b", 2, 0), ("b", 2, 0), ("c", 1, 0))
    for item in items[: len(crowd)]:
        item.gone = True
        queue.note_gone()
    assert queue._ghosts == 0
    assert groups_of(queue) == "bbc"


def test_a_turn_that_goes_on_is_no_second_one_after_a_sweep() -> None:
    """The group whose turn it is has as much of it left as before."""
    crowd = [("b", 1, 0)] * (SPARE_GHOSTS + 4)
    queue, items = queue_of(("a", 2, 0), ("a", 2, 0), ("a", 2, 0), *crowd, ("c", 1, 0))
    queue.pop()
    for item in items[3 : 3 + len(crowd)]:
        item.gone = True
        queue.note_gone()
    assert queue._ghosts == 0
    assert groups_of(queue) == "aca"


def test_who_is_left_keeps_the_order_when_most_are_withdrawn() -> None:
    """Those that are swept out were anywhere between the others."""
    count = 4 * SPARE_GHOSTS
    queue, items = queue_of(*[("", 1, number * 37 % count) for number in range(count)])
    gone = [item for number, item in enumerate(items) if number % 7 not in {2, 5}]
    for item in gone:
        item.gone = True
        queue.note_gone()
    left = [number for number in range(count) if not items[number].gone]
    assert queue._ghosts < count - len(left)
    by_priority = sorted(left, key=lambda number: -(number * 37 % count))
    assert names_of(queue) == " ".join(map(str, by_priority))


@pytest.mark.parametrize("group", ["", "a"])
@pytest.mark.parametrize("weight", [1, 3])
def test_a_group_that_had_no_work_has_nothing_left_of_its_turn(group: str, weight: int) -> None:
    """Its next turn is worth what any other is."""
    queue = FairQueue[Item](is_gone)
    queue.push(Item(group=group), Share(group, weight))
    assert queue.pop().group == group
    for _ in range(2 * weight):
        queue.push(Item(group=group or "-"), Share(group, weight))
        queue.push(Item(group="b"), Share("b"))
    own = (group or "-") * weight
    assert groups_of(queue).startswith(f"{own}b{own}b")


def test_the_last_one_may_be_withdrawn() -> None:
    """An empty queue is as good as new."""
    queue, (item,) = queue_of(("a", 1, 0))
    item.gone = True
    queue.note_gone()
    assert not queue
    queue.push(Item("next"))
    assert names_of(queue) == "next"


def test_drained_it_gives_back_all_who_wait() -> None:
    """The end of a pool: whoever had not started is told."""
    queue, items = queue_of(("", 1, 0), ("b", 1, 0), ("b", 1, 2), ("", 1, 0))
    items[0].gone = True
    queue.note_gone()
    assert [item.name for item in queue.drain()] == ["3", "2", "1"]
    assert not queue
    queue.push(Item("later"), Share("b"))
    assert names_of(queue) == "later"
    queue, _ = queue_of(*(("b", 1, level) for level in (0, 2, 1, 3, 1, 4, 2)))
    assert "".join(item.name for item in queue.drain()) == "5316240"


# --- properties


NAMES = st.sampled_from("abcd")
OPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), NAMES, st.integers(-1, 2)),
        st.tuples(st.just("pop"), st.just(""), st.just(0)),
        st.tuples(st.just("withdraw"), st.just(""), st.integers(0, 99)),
    ),
    max_size=120,
)
WEIGHTS = st.fixed_dictionaries(dict.fromkeys("abcd", st.integers(1, 4)))


@given(ops=OPS, weights=WEIGHTS)
def test_everybody_has_one_turn_or_none(
    ops: list[tuple[str, str, int]], weights: dict[str, int]
) -> None:
    """Whatever comes and goes: nobody is lost, given twice, or given after it has gone."""
    queue = FairQueue[Item](is_gone)
    waiting: list[Item] = []
    for op, group, number in ops:
        if op == "push":
            waiting.append(Item(group=group))
            queue.push(waiting[-1], Share(group, weights[group], number))
        elif op == "pop" and waiting:
            waiting.remove(queue.pop())
        elif op == "withdraw" and waiting:
            item = waiting.pop(number % len(waiting))
            item.gone = True
            queue.note_gone()
        assert len(queue) == len(waiting)
    assert set(queue.drain()) == set(waiting)


@given(ops=OPS, weights=WEIGHTS)
def test_a_group_with_work_waits_at_most_for_the_weights_of_the_others(
    ops: list[tuple[str, str, int]], weights: dict[str, int]
) -> None:
    """The bound: between two items of a group with work come at most ``W - w`` others."""
    queue = FairQueue[Item](is_gone)
    counts: Counter[str] = Counter()
    others_since: Counter[str] = Counter()
    for op, group, priority in ops * 3:
        if op == "push":
            queue.push(Item(group=group), Share(group, weights[group], priority))
            counts[group] += 1
        elif queue:
            served = queue.pop().group
            counts[served] -= 1
            others_since[served] = 0
            for name, weight in weights.items():
                if not counts[name]:
                    others_since[name] = 0
                elif name != served:
                    others_since[name] += 1
                    assert others_since[name] <= sum(weights.values()) - weight


@given(
    weights=st.lists(st.integers(1, 5), min_size=2, max_size=5),
    place=st.integers(1, 40),
    crowd=st.integers(50, 200),
)
def test_the_nth_of_a_group_waits_for_so_many_of_the_others(
    weights: list[int], place: int, crowd: int
) -> None:
    """The bound for one item: ``ceil(n / w) * (W - w)``, however many the others are."""
    queue = FairQueue[Item](is_gone)
    for number, weight in enumerate(weights[1:]):
        for _ in range(crowd):
            queue.push(Item(group=str(number)), Share(str(number), weight))
    for _ in range(place):
        queue.push(Item("mine", "mine"), Share("mine", weights[0]))
    mine = others = 0
    while mine < place:
        if queue.pop().name == "mine":
            mine += 1
        else:
            others += 1
    assert others <= math.ceil(place / weights[0]) * sum(weights[1:])


@given(
    weights=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    alone=st.integers(0, 40),
    costs=st.lists(st.integers(1, 3), min_size=60, max_size=60),
    costly=st.booleans(),
)
def test_a_group_that_was_alone_has_saved_nothing(
    weights: tuple[int, int], alone: int, costs: list[int], *, costly: bool
) -> None:
    """However long it had all turns: who comes then waits for one turn, and no more."""
    queue = FairQueue[Item](is_gone, (lambda item: item.cost) if costly else None)
    for cost in costs:
        queue.push(Item(group="a", cost=cost), Share("a", weights[0]))
    for _ in range(alone):
        queue.pop()
    for cost in costs:
        queue.push(Item(group="b", cost=cost), Share("b", weights[1]))
    spent = 0
    while (item := queue.pop()).group == "a":
        spent += item.cost if costly else 1
    dearest = max(costs) if costly else 1
    # What was left of a turn is less than an item.
    assert spent < (weights[0] + 1) * dearest


@given(ops=OPS)
def test_one_group_alone_is_a_line(ops: list[tuple[str, str, int]]) -> None:
    """First come, first served, but for who has gone."""
    queue, waiting = FairQueue[Item](is_gone), list[Item]()
    for op, _, number in ops:
        if op == "push":
            waiting.append(Item())
            queue.push(waiting[-1])
        elif op == "pop" and waiting:
            assert queue.pop() is waiting.pop(0)
        elif op == "withdraw" and waiting:
            item = waiting.pop(number % len(waiting))
            item.gone = True
            queue.note_gone()
        assert len(queue) == len(waiting)


@given(
    weights=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    costs=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=50, max_size=50),
)
def test_groups_with_work_share_the_costs_by_their_weights(
    weights: tuple[int, int], costs: list[tuple[int, int]]
) -> None:
    """Within one turn and the dearest item, at every moment at which both have work."""
    queue = FairQueue[Item](is_gone, lambda item: item.cost)
    for pair in costs:
        for number, cost in enumerate(pair):
            queue.push(Item(group=str(number), cost=cost), Share(str(number), weights[number]))
    spent, left = [0, 0], [len(costs), len(costs)]
    while all(left):
        item = queue.pop()
        spent[int(item.group)] += item.cost
        left[int(item.group)] -= 1
        turns = [spent[number] / (20 * weights[number]) for number in (0, 1)]
        assert abs(turns[0] - turns[1]) <= 2


@given(priorities=st.lists(st.integers(-2, 2), max_size=60))
def test_a_level_of_priority_is_worth_so_many_places(priorities: list[int]) -> None:
    """Within a group, the order is the arrival less the places, and then the arrival."""
    queue, _ = queue_of(*[("", 1, priority) for priority in priorities])
    ranks = [(n - p * PLACES_PER_LEVEL, n) for n, p in enumerate(priorities)]
    assert names_of(queue) == " ".join(str(n) for _, n in sorted(ranks))

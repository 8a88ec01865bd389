"""The line for budgets inside one another: in order, and short looks however long it is."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentpool import Budget, LimitExceededError
from agentpool._budget.budget import ledger_of
from agentpool._budget.claims import MAX_PASSED, Claim
from agentpool._budget.line import Line
from agentpool.tools import Reservation
from tests.support.growth import lines_run

Path: TypeAlias = tuple[str, ...]

PATHS: tuple[Path, ...] = (("root",), ("a", "root"), ("b", "root"), ("c", "b", "root"))


def claim(budget: Budget, tokens: int) -> Claim:
    """Want one request of so many tokens, and wait if need be."""
    return ledger_of(budget).claim(tokens=tokens, cost_usd=0.0, is_stalled=lambda: False)


def reservation(claim: Claim) -> Reservation:
    """Return the reservation of a claim that has it."""
    assert isinstance(claim.result, Reservation), claim.result
    return claim.result


@given(
    st.lists(
        st.tuples(st.sampled_from(["join", "join", "leave", "look"]), st.integers(0, 99)),
        max_size=60,
    ),
    st.data(),
)
def test_a_look_goes_in_order_and_leaves_out_what_is_held(
    steps: list[tuple[str, int]], data: st.DataObject
) -> None:
    """As a list of all items says, whoever joins, leaves and is held in between."""
    line: Line[str, int] = Line()
    there: list[tuple[Path, int]] = []
    for number, (what, which) in enumerate(steps):
        if what == "join":
            path = PATHS[which % len(PATHS)]
            line.join(path, number)
            there.append((path, number))
        elif what == "leave" and there:
            path, item = there.pop(which % len(there))
            line.leave(path, item)
            line.leave(path, item)
        elif what == "look":
            held: set[str] = set()
            open_ones = list(there)
            for item in line.look(held):
                while not held.isdisjoint(open_ones[0][0]):
                    open_ones.pop(0)
                path, expected = open_ones.pop(0)
                assert item == expected
                if data.draw(st.booleans(), label=f"{item} leaves"):
                    line.leave(path, item)
                    there.remove((path, item))
                elif data.draw(st.booleans(), label=f"{item} holds"):
                    held.add(data.draw(st.sampled_from(path)))
            assert all(not held.isdisjoint(path) for path, _ in open_ones)
        assert len(line) == len(there)


def waiting_for(budgets: list[Budget]) -> tuple[Reservation, list[Claim]]:
    """Let so many wait that want more or less, and return what they wait for."""
    first = reservation(claim(budgets[0], 900))
    return first, [claim(one, 200 + at * 7 % 501) for at, one in enumerate(budgets)]


@pytest.mark.parametrize("is_part", [False, True], ids=["one budget", "parts of it"])
def test_a_look_is_as_short_in_a_long_line(*, is_part: bool) -> None:
    """What is given back may serve anybody: it is offered to those who wait longest."""

    def lines(n: int) -> int:
        root = Budget(tokens=1000)
        first, waiting = waiting_for([Budget(parent=root) if is_part else root for _ in range(n)])
        count = lines_run(lambda: first.commit(tokens=0, cost_usd=0.0), "_budget")
        assert isinstance(waiting[0].result, Reservation)
        count += lines_run(waiting[n // 2].withdraw, "_budget")
        count += lines_run(lambda: claim(root, 300), "_budget")
        return count

    assert lines(200) == lines(100)


def test_who_waits_behind_many_has_its_turn_when_they_are_refused() -> None:
    """It waits for a look at them, and must not wait for ever if nothing can come to them."""
    budget = Budget(tokens=100)
    first = reservation(claim(budget, 80))
    large = [claim(budget, 60) for _ in range(3 * MAX_PASSED)]
    small = claim(budget, 10)
    assert small.result is None, "it overtakes a few, and not all"
    first.commit(tokens=70, cost_usd=0.0)
    assert all(isinstance(one.result, LimitExceededError) for one in large)
    assert reservation(small).tokens == 10


def test_who_waits_behind_many_has_its_turn_when_they_give_up() -> None:
    """Those in front were cancelled, from the middle on."""
    budget = Budget(tokens=100)
    claim(budget, 80)
    large = [claim(budget, 60) for _ in range(2 * MAX_PASSED)]
    small = claim(budget, 10)
    for one in large[4:] + large[:4]:
        assert (small.result is None) == (sum(one.result is None for one in large) >= MAX_PASSED)
        large.remove(one)
        one.withdraw()
    assert reservation(small).tokens == 10


def test_a_few_are_overtaken() -> None:
    """Who fits does not wait for one fewer than that."""
    budget = Budget(tokens=100)
    claim(budget, 80)
    large = [claim(budget, 60) for _ in range(MAX_PASSED - 1)]
    assert reservation(claim(budget, 10)).tokens == 10
    assert all(one.passed == 1 for one in large)


def test_a_long_line_for_one_part_holds_up_no_other_part() -> None:
    """What they wait for is of their own budget."""
    root = Budget(tokens=1000)
    here, there = Budget(tokens=100, parent=root), Budget(tokens=100, parent=root)
    first = reservation(claim(here, 80))
    waiting = [claim(here, 50) for _ in range(2 * MAX_PASSED)]
    assert reservation(claim(there, 50)).tokens == 50
    assert reservation(claim(root, 50)).tokens == 50
    served: list[int] = []
    for at, one in enumerate(waiting):
        one.wake = lambda at=at: served.append(at)  # type: ignore[misc]
    first.commit(tokens=0, cost_usd=0.0)
    for one in waiting:
        reservation(one).commit(tokens=0, cost_usd=0.0)
    assert len(served) == len(waiting)
    assert all(before < after for before, after in pairwise(served))

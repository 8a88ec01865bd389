"""The strands of an agent are counted as they begin and end to wait."""

from __future__ import annotations

from agentpool._scheduling.strand import Fork, Strand


def test_a_strand_that_was_left_behind_is_counted_no_more() -> None:
    """A thread that waits in a call ends its wait later than its strand."""
    left, other = Strand(), Strand()
    fork = Fork({left: None, other: None}, 2, {})
    left.waits += 1
    fork.begin_wait(left)
    assert fork.busy == 1
    fork.end(left)
    left.waits -= 1
    fork.end_wait(left)
    assert fork.busy == 1
    left.waits += 1
    fork.begin_wait(left)
    assert fork.busy == 1


def test_calls_of_one_moment_have_one_deadline() -> None:
    """It is a guard until the last of them has ended."""
    fork = Fork({}, 0, {})
    fork.add_guard(1.5)
    fork.add_guard(1.5)
    fork.end_guard(1.5)
    assert 1.5 in fork.guards
    fork.end_guard(1.5)
    assert not fork.guards

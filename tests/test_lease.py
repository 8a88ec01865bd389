"""Leases with fences: whatever clocks and processes do, one holder at a time writes."""

from __future__ import annotations

from typing import Final

import attrs
from hypothesis import given
from hypothesis import strategies as st

from agentpool._lease import NOBODY, HeldLease, LeaseState

SECONDS: Final = 10.0
"""How long each lease lasts."""

NAMES: Final = "abc"


@attrs.define
class World:
    """One thing, those who want it, true time, and a clock that is set now and then."""

    state: LeaseState = attrs.field(factory=LeaseState)
    true_time: float = 0.0
    set_by: float = 100.0
    """How far the clock on the wall is from true time."""
    fences: dict[str, int] = attrs.field(factory=dict[str, int])
    """What each believes to have, however long ago that was."""
    renewed: float = 0.0
    """The true time of the last claim or write."""
    was_set_forward: bool = False
    """Whether the clock was since."""
    watching: dict[str, tuple[float, float]] = attrs.field(factory=dict[str, tuple[float, float]])
    """Who waits: the last renewal that it saw, and since when, in true time."""
    written: list[int] = attrs.field(factory=list[int])
    """The fences of everything that was written."""

    @property
    def now(self) -> float:
        """The time on the wall."""
        return self.true_time + self.set_by

    def claim(self, who: str) -> None:
        """Claim, if that may be."""
        last, since = self.watching.get(who, (-1.0, self.true_time))
        silent = last if self.true_time - since >= SECONDS else None
        before = self.state
        if not before.may_be_claimed(who, now=self.now, silent_since=silent):
            if who not in self.watching or last != before.renewed_at:
                self.watching[who] = (before.renewed_at, self.true_time)
            return
        if before.holder not in {who, NOBODY} and not self.was_set_forward:
            # The clock may go back as it likes: nobody loses its lease before its end.
            assert self.true_time - self.renewed >= SECONDS
        self.state = before.claimed(who, seconds=SECONDS, now=self.now)
        assert self.state.fence > before.fence
        self.fences[who] = self.state.fence
        self._note_renewal()

    def write(self, who: str) -> None:
        """Write with the fence that *who* believes in."""
        fence = self.fences.get(who, 0)
        after = self.state.renewed(fence, now=self.now)
        assert (after is not None) == (who == self.state.holder and fence == self.state.fence)
        if after is not None:
            self.state = after
            self.written.append(fence)
            self._note_renewal()

    def release(self, who: str) -> None:
        """Give up what *who* believes to have."""
        after = self.state.released(self.fences.get(who, 0))
        if after is not None:
            assert who == self.state.holder
            assert not after.is_held(now=self.now)
            self.state = after

    def _note_renewal(self) -> None:
        self.renewed, self.was_set_forward = self.true_time, False
        self.watching.clear()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.true_time += seconds

    def set_clock(self, by: float) -> None:
        """Set the clock on the wall."""
        self.set_by += by
        self.was_set_forward |= by > 0


steps = st.one_of(
    st.tuples(st.sampled_from(["claim", "write", "release"]), st.sampled_from(NAMES)),
    st.tuples(st.just("pass_time"), st.sampled_from([0.5, 4.0, 9.5, 10.0, 25.0])),
    st.tuples(st.just("set_clock"), st.sampled_from([-1000.0, -30.0, -5.0, 5.0, 3600.0])),
)


@given(st.lists(steps, max_size=40))
def test_one_holder_writes_whatever_the_clock_does(todo: list[tuple[str, str | float]]) -> None:
    """Nobody loses a lease early by a clock that goes back; an old fence writes nothing."""
    world = World()
    for name, argument in todo:
        getattr(world, name)(argument)
    assert world.written == sorted(world.written)


@given(st.lists(steps, max_size=40))
def test_a_lease_does_not_outlast_its_holder_for_ever(todo: list[tuple[str, str | float]]) -> None:
    """After two lengths without a sign, whoever wants it has it, also when the clock went back."""
    world = World()
    for name, argument in todo:
        getattr(world, name)(argument)
    world.claim("d")
    world.pass_time(SECONDS)
    world.claim("d")
    assert world.state.holder == "d"


def test_a_dead_holder_is_not_waited_for() -> None:
    """Nor is one that has given it up."""
    state = LeaseState().claimed("a", seconds=SECONDS, now=0.0)
    assert not state.may_be_claimed("b", now=1.0)
    assert state.may_be_claimed("b", now=1.0, is_dead=True)
    given_up = state.released(state.fence)
    assert given_up is not None
    assert given_up.may_be_claimed("b", now=1.0)
    assert given_up.released(given_up.fence) is given_up.renewed(given_up.fence, now=1.0) is None


def test_a_clock_that_went_back_makes_no_lease_longer() -> None:
    """That is what whoever is refused is told."""
    state = LeaseState().claimed("a", seconds=SECONDS, now=1000.0)
    assert state.went_back(500.0)
    assert not state.went_back(1000.0)
    assert (state.latest_end(500.0), state.latest_end(1004.0)) == (510.0, 1010.0)


@given(
    asked=st.lists(st.floats(0, 1000), min_size=1, max_size=6),
    delays=st.lists(st.floats(0, 50), min_size=6, max_size=6),
)
def test_a_holder_ends_before_anybody_else_begins(asked: list[float], delays: list[float]) -> None:
    """However long questions and answers are under way, and in whatever order answers come."""
    granted = [one + delay for one, delay in zip(asked, delays, strict=False)]
    state = LeaseState().claimed("a", seconds=SECONDS, now=granted[0])
    held = HeldLease(state.fence, SECONDS, asked[0])
    for one in sorted(granted[1:]):
        # The grantor's clock does not go back here; renewals are granted as they come.
        state = state.renewed(state.fence, now=max(one, state.renewed_at)) or state
    for one in asked[1:]:
        held = held.renewed(one)
    end = held.ends_at
    assert held.is_over(now=end)
    assert state.may_be_claimed("b", now=state.latest_end(2000.0))
    assert not state.may_be_claimed("b", now=end - 1e-6)

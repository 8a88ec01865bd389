"""Who waits for room in a full queue is let in in order, also if room for several comes at once."""

from __future__ import annotations

import contextlib
from functools import partial

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from agentpool import AgentPool, PoolFullError, open_pool
from agentpool.testing import simulate
from tests.support.fakes import hanging_driver, job

WAITING = 8
QUEUED = 2

Act = tuple[str, int]
"""What happens, and how many slots come, or which spawner is cancelled."""

acts = st.lists(
    st.one_of(
        st.tuples(st.just("slots"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, WAITING - 1)),
        st.tuples(st.sampled_from(["abort", "end", "late", "steal", "shrink"]), st.just(0)),
    ),
    min_size=1, max_size=8,
)  # fmt: skip


class Spawners:
    """Tasks that spawn one agent each, in the order in which they asked."""

    pool: AgentPool

    def __init__(self) -> None:
        """Nobody has asked."""
        self.entered: dict[int, int] = {}
        self.cancelled: set[int] = set()
        self.scopes: dict[int, trio.CancelScope] = {}
        self.asked = 0

    async def spawn(self) -> None:
        """Spawn one, unless cancelled."""
        number = self.asked
        self.asked += 1
        with trio.CancelScope() as scope:
            self.scopes[number] = scope
            self.entered[number] = (await self.pool.spawn(job("q"))).agent_id
        if scope.cancelled_caught:
            self.cancelled.add(number)

    async def act(self, act: str, count: int, nursery: trio.Nursery) -> None:
        """Make room, take it, or let somebody give up."""
        if act == "slots":
            self.pool.max_concurrent = int(self.pool.max_concurrent) + count
        elif act == "cancel":
            self.scopes[count].cancel()
        elif act == "abort":
            self.pool.abort_all()
        elif act == "end":
            self.pool[1].cancel()
        elif act == "steal":
            with contextlib.suppress(PoolFullError):
                self.pool.spawn_nowait(job("q"))
        elif act == "shrink":
            self.pool.max_concurrent = max(1, int(self.pool.max_concurrent) - 2)
        else:
            nursery.start_soon(self.spawn)
            await trio.lowlevel.checkpoint()

    def left(self) -> set[int]:
        """Return who waits."""
        return set(self.scopes) - set(self.entered) - self.cancelled

    def check(self) -> None:
        """Nobody came in before who waited longer, and nobody waits while there is room."""
        left, pool = self.left(), self.pool
        assert not left or max(self.entered) < min(left), (self.entered, left)
        ids = [self.entered[number] for number in sorted(self.entered)]
        assert ids == sorted(ids), self.entered
        assert not left or pool.active_count + pool.queued_count >= pool.max_concurrent + QUEUED


async def let_in(acts: list[Act]) -> None:
    """Do all of *acts* before anybody runs, and then make room until all are in."""
    them = Spawners()
    async with open_pool(hanging_driver(), max_concurrent=2, max_queued=QUEUED) as them.pool:
        async with trio.open_nursery() as nursery:
            for _ in range(WAITING):
                nursery.start_soon(them.spawn)
                await wait_all_tasks_blocked()
            for act, count in acts:
                await them.act(act, count, nursery)
            await wait_all_tasks_blocked()
            them.check()
            while them.left():
                them.pool.abort_all()
                await wait_all_tasks_blocked()
                them.check()
        them.pool.abort_all()


@given(acts=acts, seed=st.integers(0, 1000))
def test_nobody_comes_in_before_who_waited_longer(acts: list[Act], seed: int) -> None:
    """In every order of tasks, and whoever is cancelled beside them: the room is the next one's."""
    simulate(partial(let_in, acts), seed=seed)

"""What browsers see while events come, whenever they join, look and sleep."""

from __future__ import annotations

from random import Random
from typing import Any, final

import attrs
import pytest
import trio

from agentpool import AgentPool, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import OnDelta
from agentpool.drivers import Completion, CompletionRequest
from agentpool.live import LivePage, serve_live
from agentpool.testing import simulate
from tests.support.fakes import LiveDriver, manifest, query_of
from tests.support.page_looks import looking

AGENTS = 4

MOMENTS = 6
"""At which agents speak, and at which browsers join."""

EACH_SECONDS = 0.02
"""Between two moments: as often as the page takes what has come."""

AGE = {"queued": 0, "running": 1, "completed": 2, "failed": 2}

SAID = "".join(f"<{n}>" for n in range(2 * MOMENTS))


@final
@attrs.define(eq=False)
class Eyes:
    """All that was shown to one who looks, in order."""

    last: dict[str, Any] = attrs.field(factory=dict[str, Any])
    ages: dict[int, int] = attrs.field(factory=dict[int, int])
    words: dict[int, int] = attrs.field(factory=dict[int, int])

    def see(self, look: dict[str, Any]) -> None:
        """Check that nothing goes back, is twice there, or is lost."""
        rows = look["agents"] + look["ended"]
        ids = {row[0] for row in rows}
        assert len(ids) == len(rows), rows
        assert self.ages.keys() <= ids, rows  # they are fewer than a look can hold
        for agent_id, _, _, status, *_ in rows:
            assert self.ages.get(agent_id, 0) <= AGE[status], rows
            self.ages[agent_id] = AGE[status]
        for row in look["agents"]:
            assert SAID.startswith(row[13]), row
            assert self.words.get(row[0], 0) <= len(row[13]), row
            self.words[row[0]] = len(row[13])
        assert sum(look["counts"].values()) == len(look["ended"]), rows
        assert look["seconds"] >= self.last.get("seconds", 0.0)
        # The newest first.
        for times in ([row[7] for row in look["ended"]], [one[0] for one in look["news"]]):
            assert times == sorted(times, reverse=True), look
        self.last = look


def speaking(dice: Random) -> LiveDriver:
    """Return a model that says two words at each moment, sooner or later in it."""

    async def answer(request: CompletionRequest, on_delta: OnDelta) -> Completion:
        for moment in range(MOMENTS):
            for word in range(2 * moment, 2 * moment + 2):
                # As many steps as a browser may need to join.
                for _ in range(dice.randrange(12)):
                    await trio.lowlevel.checkpoint()
                on_delta(f"<{word}>")
            await trio.sleep(EACH_SECONDS)
        if query_of(request) == "work 3":
            raise LookupError("there is nothing")
        return Completion("done")

    return LiveDriver(answer)


async def join(page: LivePage, eyes: Eyes) -> None:
    """Look once, and go."""
    async with looking(page) as looks:
        look = await looks.next()
    assert look is not None
    eyes.see(look)


async def stay(page: LivePage, nap_seconds: float) -> Eyes:
    """Look until all have ended, after a nap in which nothing is read."""
    eyes = Eyes()
    async with looking(page) as looks:
        await trio.sleep(nap_seconds)
        while len(eyes.last.get("ended", ())) < AGENTS:
            look = await looks.next()
            assert look is not None
            eyes.see(look)
    return eyes


async def work(pool: AgentPool) -> list[AgentStatus]:
    """Let agents work, two at a time."""
    for n in range(1, AGENTS + 1):
        await pool.spawn(SpawnConfig(manifest(), f"work {n}", name=f"agent {n}"))
    ended = await pool.join_all()
    return [outcome.status for _, outcome in sorted(ended.items())]


@pytest.mark.parametrize("seed", range(12))
def test_whenever_a_browser_looks_it_sees_events_in_order(seed: int) -> None:
    """It joins while events come, stays, or sleeps; those that join see no less than before."""

    async def scenario() -> None:
        dice = Random(seed)  # noqa: S311  # no secret
        async with (
            open_pool(speaking(dice), max_concurrent=2, max_queued=AGENTS) as pool,
            serve_live(pool) as page,
        ):

            async def watch(nap_seconds: float) -> None:
                eyes = await stay(page, nap_seconds)
                assert not eyes.last["agents"]
                assert eyes.last["counts"] == {"completed": AGENTS - 1, "failed": 1}
                ends = {row[0]: row[3] for row in eyes.last["ended"]}
                assert ends == {n: "failed" if n == 3 else "completed" for n in range(1, 5)}

            async def come_and_go() -> None:
                eyes = Eyes()
                for _ in range(2 * MOMENTS):
                    await join(page, eyes)
                    await trio.sleep(dice.randrange(2) * EACH_SECONDS)

            async with trio.open_nursery() as browsers:
                browsers.start_soon(watch, 0.0)
                browsers.start_soon(watch, 0.3)
                browsers.start_soon(come_and_go)
                browsers.start_soon(come_and_go)
                await work(pool)

    simulate(scenario, seed=seed)

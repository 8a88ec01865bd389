"""What a gate and groups do to the load: two experiments in virtual time, and their charts.

``python benchmarks/levelling.py docs/explanation`` prints the numbers and writes
``levelling-gate.svg`` and ``levelling-groups.svg`` there. Nothing is random but what the
seed says, and no time passes: the same numbers come out on every machine.
"""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path
from typing import Final

import attrs
import trio
from chart import GREY, Chart, Line, page
from meter import Parser, a_folder

from agentpool import AgentManifest, AgentStatus, SpawnConfig, open_pool
from agentpool.abc import Driver, Observer
from agentpool.drivers import (
    CompletionRequest,
    FunctionDriver,
    GatedDriver,
    RateLimitError,
    RequestGate,
)
from agentpool.observe import AgentStarted, Event
from agentpool.testing import simulate

AGENTS: Final = 500
PER_MINUTE: Final = 60
ANSWER_SECONDS: Final = 1.0
MINUTE: Final = 60.0

CROWD: Final = 10_000
FEW: Final = 10

RED, BLUE, GREEN = "#c0392b", "#2471a3", "#1e8449"
WORKER: Final = AgentManifest(name="worker")


@attrs.define(eq=False)
class Provider:
    """Takes so many requests in any minute; tells the others when to come again."""

    answered: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)
    _taken: deque[float] = attrs.field(factory=deque)

    async def answer(self, _: CompletionRequest) -> str:
        """Answer, or refuse."""
        now = trio.current_time()
        while self._taken and self._taken[0] + MINUTE <= now:
            self._taken.popleft()
        if len(self._taken) >= PER_MINUTE:
            self.refused.append(now)
            seconds = self._taken[0] + MINUTE - now
            raise RateLimitError("too many requests", retry_after_seconds=seconds)
        self._taken.append(now)
        await trio.sleep(ANSWER_SECONDS)
        self.answered.append(trio.current_time())
        return "done"


@attrs.frozen(kw_only=True)
class Found:
    """What came of one way to send the requests."""

    completed: int
    answered: list[float]
    refused: list[float]

    def say(self, name: str) -> str:
        """Return it in words."""
        ideal = ideal_times()[-1]
        seconds = self.answered[-1]
        return (
            f"{name:24} {self.completed:4} of {AGENTS} completed, the last at {seconds:5.1f} s "
            f"({seconds / ideal:.2f} of the ideal), {len(self.refused):4} times 429"
        )


def ideal_times() -> list[float]:
    """Return when each request would be answered if all went out as early as allowed."""
    return [MINUTE * (number // PER_MINUTE) + ANSWER_SECONDS for number in range(AGENTS)]


def send(gate: RequestGate | None) -> Found:
    """Let 500 agents ask once, all at the same time."""

    async def scenario() -> Found:
        provider = Provider()
        driver: Driver = FunctionDriver(provider.answer, record=False)
        if gate is not None:
            driver = GatedDriver(driver, gate)
        async with open_pool(driver, max_concurrent=AGENTS) as pool:
            await pool.fan_out(SpawnConfig(WORKER, f"query {n}") for n in range(AGENTS))
            outcomes = (await pool.join_all()).values()
        completed = sum(outcome.status is AgentStatus.COMPLETED for outcome in outcomes)
        return Found(
            completed=completed, answered=provider.answered, refused=provider.refused
        )  # fmt: skip

    return simulate(scenario)


def count(times: list[float], until: float) -> list[tuple[float, float]]:
    """Return how many there were after each second in which there were more."""
    found = {0.0: 0.0, **{float(math.ceil(at)): float(n) for n, at in enumerate(times, 1)}}
    return [*found.items(), (until, float(len(times)))]


def draw_gate() -> str:
    """Send the requests in three ways; print and draw what came of it."""
    none = send(None)
    unknown = send(RequestGate(random_seed=1))
    known = send(RequestGate(requests_per_minute=PER_MINUTE, random_seed=1))
    for name, found in (
        ("no gate", none),
        ("a gate", unknown),
        ("a gate, told the limit", known),
    ):
        print(found.say(name))
    until = 540.0
    ticks = [MINUTE * n for n in range(10)]
    answers = Chart(
        title=f"{AGENTS} agents, a provider that takes {PER_MINUTE} requests a minute",
        x_name="seconds",
        y_name="answers",
        x_ticks=ticks,
        y_ticks=[0, 100, 200, 300, 400, 500],
        lines=[
            Line(name="as early as allowed", points=count(ideal_times(), until), colour=GREY,
                 dashed=True, steps=True),
            Line(name=f"gate, told the limit:\n{known.answered[-1]:.0f} s",
                 points=count(known.answered, until), colour=GREEN, steps=True),
            Line(name=f"gate, told nothing:\n{unknown.answered[-1]:.0f} s",
                 points=count(unknown.answered, until), colour=BLUE, steps=True),
            Line(name=f"no gate:\n{AGENTS - none.completed} agents fail",
                 points=count(none.answered, until), colour=RED, steps=True),
        ],
    )  # fmt: skip
    refusals = Chart(
        title="Requests that were refused (429)",
        x_name="seconds",
        y_name="refusals",
        x_ticks=ticks,
        y_ticks=[0, 200, 400, 600, 800, 1000],
        lines=[
            Line(name=f"no gate: {len(none.refused)}", points=count(none.refused, until),
                 colour=RED, steps=True),
            Line(name=f"gate, told nothing: {len(unknown.refused)}",
                 points=count(unknown.refused, until), colour=BLUE, steps=True),
            Line(name=f"gate, told the limit: {len(known.refused)}",
                 points=count(known.refused, until), colour=GREEN, steps=True),
        ],
    )  # fmt: skip
    return page([answers, refusals])


@attrs.define(eq=False)
class Starts(Observer):
    """Writes down who started."""

    names: list[str] = attrs.field(factory=list)

    def on_event(self, event: Event) -> None:
        """Write it down."""
        if isinstance(event, AgentStarted):
            self.names.append(event.agent_name)


def queue(*, groups: bool) -> list[int]:
    """Return how many of the crowd started before each of the few."""

    async def scenario() -> list[int]:
        starts = Starts()
        driver = FunctionDriver(lambda _: "done", record=False)
        crowd = SpawnConfig(WORKER, "work", name="crowd", group="crowd", weight=3)
        few = SpawnConfig(WORKER, "work", name="few", group="few" if groups else "crowd")
        async with open_pool(
            driver, max_concurrent=1, max_queued=2 * CROWD, observers=[starts]
        ) as pool:
            pool.fan_out_nowait([crowd] * CROWD)
            for handle in pool.fan_out_nowait([few] * FEW):
                await handle.wait()
            pool.abort_all()
        places = [place for place, name in enumerate(starts.names) if name == "few"]
        return [place - nth for nth, place in enumerate(places)]

    return simulate(scenario)


def draw_groups() -> str:
    """Queue the few behind the crowd in two ways; print and draw who had to wait."""
    together, apart = queue(groups=False), queue(groups=True)
    # The agent that took the slot before anybody queued comes on top of the bound.
    bound = [3 * nth + 1 for nth in range(1, FEW + 1)]
    print(f"before each of the few, one group:   {together}")
    print(f"before each of the few, weights 3:1: {apart}")
    print(f"the bound:                           {bound}")
    assert all(found <= most for found, most in zip(apart, bound, strict=True))
    chart = Chart(
        title=f"A group of {FEW} that comes behind one of {CROWD:,}",
        x_name="the n-th agent of the small group",
        y_name="of the large one, before it",
        x_ticks=list(range(FEW + 1)),
        y_ticks=[1, 10, 100, 1000, 10_000],
        logarithmic=True,
        lines=[
            Line(name="one group for all", points=list(enumerate(together, 1)), colour=RED),
            Line(name="two groups, 3 : 1", points=list(enumerate(apart, 1)), colour=GREEN),
            Line(name="the bound, 3 n\n", points=list(enumerate(bound, 1)), colour=GREY,
                 dashed=True),
        ],
    )  # fmt: skip
    return page([chart])


def main() -> None:
    """Do both, and write the charts into a folder."""
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument(
        "folder", nargs="?", type=a_folder, default="docs/explanation",
        help="where the charts are written; default: %(default)s",
    )  # fmt: skip
    folder: Path = parser.parse_args().folder
    (folder / "levelling-gate.svg").write_text(draw_gate(), encoding="utf-8")
    (folder / "levelling-groups.svg").write_text(draw_groups(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Latency and dice: chance that a seed repeats."""

from __future__ import annotations

import pytest
import trio

from agentpool import AgentManifest, SpawnConfig, Usage, UsageError, open_pool
from agentpool.abc import CompletionRequest
from agentpool.drivers import ScriptedDriver, UserMessage, open_openai
from agentpool.testing import (
    LatencyDriver,
    check_driver,
    dice,
    latency,
    open_quirk_server,
    quirks,
    simulate,
    slow,
)

MANIFEST = AgentManifest(name="worker", capabilities=())


async def two_answers() -> list[float]:
    """Return when two agents had their answers."""
    driver = LatencyDriver(ScriptedDriver(["a", "b"]), seconds=2.0)
    async with open_pool(driver) as pool:
        await pool.fan_out(SpawnConfig(MANIFEST, query) for query in "xy")
        ends = (await pool.join_all()).values()
    return [end.finished_at for end in ends]


def test_a_seed_has_its_own_latencies() -> None:
    """Two requests take different times, the same at every run of the seed."""
    first = simulate(two_answers, seed=0)
    assert first[0] != first[1]
    assert first == simulate(two_answers, seed=0) != simulate(two_answers, seed=1)
    assert all(0.01 < seconds < 200 for seconds in first)


async def test_it_is_a_driver_like_the_one_behind_it() -> None:
    """What it says of itself is what the other says."""
    inner = ScriptedDriver(["a"] * 9, context_window=77, price_per_token_usd=0.5)
    driver = LatencyDriver(inner, seconds=0.0)
    await check_driver(lambda: LatencyDriver(ScriptedDriver(["a"] * 9), seconds=0.0))
    assert (driver.context_window, driver.privacy) == (77, inner.privacy)
    assert driver.price(Usage(input_tokens=2)) == 1.0
    with pytest.raises(UsageError, match="seconds must be >= 0, got -1"):
        LatencyDriver(inner, seconds=-1)


def test_scripted_tools_may_be_slow() -> None:
    """Any async function takes its time, and keeps its name."""

    async def look_up(word: str) -> str:
        """Look it up."""
        await trio.lowlevel.checkpoint()
        return word.upper()

    slowly = slow(look_up, 3.0)
    assert slowly.__name__ == "look_up"

    async def scenario() -> tuple[str, float]:
        return await slowly("word"), trio.current_time()

    found, seconds = simulate(scenario)
    assert found == "WORD"
    assert 0.05 < seconds < 300


def test_dice_have_names() -> None:
    """The same name is the same dice; two parts with their own do not disturb each other."""

    async def draws(more: int) -> list[float]:
        await trio.lowlevel.checkpoint()
        for _ in range(more):
            dice("other").random()
        assert dice() is dice()
        return [dice().random(), dice("mine").random(), latency(1.0)]

    assert simulate(draws, 0) == simulate(draws, 5)
    assert simulate(draws, 0, seed=1) != simulate(draws, 0, seed=2)
    # Outside of the kit, chance decides.
    assert trio.run(draws, 0) != trio.run(draws, 0)
    with pytest.raises(RuntimeError):
        dice()


async def slow_server() -> float:
    """Return when a server that takes about a minute has answered."""
    quirk = next(one for one in quirks() if one.api == "chat" and one.result.error is None)
    async with (
        open_quirk_server([quirk], latency_seconds=60.0) as server,
        open_openai("m", base_url=server.url(quirk.name), api="chat") as driver,
    ):
        answer = await driver.complete(CompletionRequest([UserMessage("Hi")]))
        assert answer.text == quirk.result.text
        assert len(server.requests) == 1
    return trio.current_time()


def test_a_server_takes_its_time_over_real_http() -> None:
    """Minutes of the clock and none of anybody's; another seed, another server."""
    times = {seed: simulate(slow_server, seed=seed, late_clock=False) for seed in (0, 1)}
    assert times[0] == simulate(slow_server, seed=0, late_clock=False) != times[1]
    assert all(1 < seconds < 6000 for seconds in times.values())


async def test_no_server_answers_before_it_was_asked() -> None:
    """Less than no latency is refused."""
    with pytest.raises(UsageError, match=r"latency_seconds must be >= 0, got -1\.0"):
        async with open_quirk_server(latency_seconds=-1.0):
            pass

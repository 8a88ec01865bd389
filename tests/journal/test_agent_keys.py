"""Which agent of an earlier process a spawn gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentStatus,
    Budget,
    Capability,
    SpawnConfig,
    UsageError,
    open_pool,
)
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import InMemoryJournal, JournalRecord, RecordKind, ResumeMismatchError
from agentpool.testing import crash_everywhere, simulate
from agentpool.tools import ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())
PARENT = AgentManifest(name="parent", capabilities=(Capability.spawn(2),))


async def after(request: CompletionRequest) -> Answer:
    """Answer after as many seconds as it is asked."""
    text = request.messages[0].text  # type: ignore[union-attr]  # no tools here
    await trio.sleep(float(text))
    return text


# --- racers


@pytest.mark.parametrize("key", [None, "fast"])
def test_a_loser_that_is_not_started_again_is_the_end_of_no_other(key: str | None) -> None:
    """Whether the next one is of a map, of a race or supervised. It has ended, and has spent."""

    async def scenario(journal: Any) -> object:  # noqa: ANN401  # a journal that may be ended
        budget = Budget(requests=100)
        async with open_pool(
            FunctionDriver(after), journal=journal, resume=True, max_concurrent=2, budget=budget
        ) as pool:
            fast = SpawnConfig(READER, "1", key=key)
            slow = [SpawnConfig(READER, one) for one in ("5", "3")]
            won = [(await pool.race([*slow, fast])).text, (await pool.race([fast])).text]
            async with pool.map(READER, ["1"]) as outcomes:
                won += [one.text async for one in outcomes]
            won += [one.text for one in await pool.supervise([fast])]
        (kept,) = await journal._kept.pools()
        assert not kept.is_open
        assert budget.statistics().requests.committed >= 5
        return won

    assert crash_everywhere(scenario).points > 10


def test_a_loser_that_had_not_ended_is_told_as_ended() -> None:
    """Its process was killed when another one had won: it is open for no one."""

    async def scenario() -> None:
        journal, asked = InMemoryJournal(), list[str]()

        async def answer(request: CompletionRequest) -> Answer:
            asked.append(request.messages[0].text)  # type: ignore[union-attr]  # no tools here
            return await after(request)

        async def race(*, dies: bool) -> float:
            budget = Budget(requests=100)
            async with open_pool(
                FunctionDriver(answer), journal=journal, resume=True, max_concurrent=1 + dies,
                budget=budget,
            ) as pool:  # fmt: skip
                with trio.move_on_after(2 if dies else 100):
                    assert (await pool.race([SpawnConfig(READER, one) for one in "19"])).text == "1"
            return budget.statistics().requests.committed

        await race(dies=True)
        records = journal._pools["pool"]
        ends = [one for one in records if one.kind.value == "ended"]
        records[:] = [one for one in records if one is not ends[-1]]  # of the one that lost
        for _ in range(2):
            assert await race(dies=False) == 2  # both had been asked
            (kept,) = await journal.pools()
            assert (kept.agents, kept.ended, asked) == (2, 2, ["1", "9"])

    simulate(scenario)


async def test_no_spawn_has_the_key_of_a_racer_that_was_not_started() -> None:
    """It may have been started by an earlier process."""
    async with open_pool(
        FunctionDriver(lambda _: "ok"), journal=InMemoryJournal(), max_concurrent=1, max_queued=0
    ) as pool:
        racers = [SpawnConfig(READER, one, key=one) for one in ("a", "b")]
        assert (await pool.race(racers)).text == "ok"
        with pytest.raises(UsageError, match=r"key 'b' belongs to a racer that was not started"):
            await pool.spawn(racers[1])
        with pytest.raises(UsageError, match=r"key 'c' is the key of two of 2 agents"):
            await pool.race([SpawnConfig(READER, "c", key="c")] * 2)


# --- children


@attrs.define(eq=False)
class Family:
    """A parent whose tool runs children, in an order, and a model that hangs for some."""

    how: Callable[[Family, ToolContext, AgentPool, Sequence[SpawnConfig]], Any]
    journal: InMemoryJournal = attrs.field(factory=InMemoryJournal)
    asked: list[str] = attrs.field(factory=list[str])
    hangs: str = ""

    async def answer(self, request: CompletionRequest) -> Answer:
        """Call the tool, say what it returned, or answer as a child."""
        last = request.messages[-1]
        if isinstance(last, ToolMessage):
            return last.content
        if last.text == "go":
            return call("split")
        self.asked.append(last.text)
        if last.text in self.hangs:
            await trio.sleep_forever()
        return last.text.upper()

    async def run(self, configs: Sequence[SpawnConfig], *, dies: bool = False) -> AgentOutcome:
        """Run the parent, or go on with it."""

        @tool(on_unknown="rerun")
        async def split(context: ToolContext) -> str:
            """Ask children."""
            outcomes = await self.how(self, context, pool, configs)
            return ",".join(sorted(one.text for one in outcomes))

        driver, tools = FunctionDriver(self.answer), ToolRegistry([split])
        async with open_pool(driver, journal=self.journal, resume=True, tools=tools) as pool:
            handle = await pool.spawn(SpawnConfig(PARENT, "go", key="k"))
            if dies:
                await trio.sleep(60)
                pool.abort_all()
            return await handle.wait()


async def side_by_side(
    _: Family, context: ToolContext, __: AgentPool, configs: Sequence[SpawnConfig]
) -> list[AgentOutcome]:
    """Run children beside each other, each a second after the one before."""
    outcomes = list[AgentOutcome]()

    async def run(config: SpawnConfig) -> None:
        outcomes.append(await context.agent.run_child(config))

    async with trio.open_nursery() as nursery:
        for config in configs:
            await trio.sleep(1)
            nursery.start_soon(run, config)
    return outcomes


async def spawned(
    _: Family, __: ToolContext, pool: AgentPool, configs: Sequence[SpawnConfig]
) -> list[AgentOutcome]:
    """Spawn them from the pool."""
    handles = [await pool.spawn(config) for config in configs]
    return [await one.wait() for one in handles]


async def fanned_out(
    _: Family, __: ToolContext, pool: AgentPool, configs: Sequence[SpawnConfig]
) -> list[AgentOutcome]:
    """Spawn all of them at once."""
    return [await one.wait() for one in await pool.fan_out(configs)]


async def fanned_out_at_once(
    _: Family, __: ToolContext, pool: AgentPool, configs: Sequence[SpawnConfig]
) -> list[AgentOutcome]:
    """Spawn all of them at once, or none."""
    return [await one.wait() for one in pool.fan_out_nowait(configs)]


async def raced(
    _: Family, __: ToolContext, pool: AgentPool, configs: Sequence[SpawnConfig]
) -> list[AgentOutcome]:
    """Let them race."""
    return [await pool.race(configs)]


def keyed(texts: str) -> list[SpawnConfig]:
    """Return configs with keys, which may be paths."""
    return [SpawnConfig(READER, one, key=f"src/{one}") for one in texts]


@pytest.mark.parametrize(
    "how",
    [side_by_side, spawned, fanned_out, fanned_out_at_once],
    ids=["run", "spawn", "fan", "now"],
)
def test_children_have_their_keys_in_whatever_order(how: Any) -> None:  # noqa: ANN401  # see Family
    """A tool that runs again asks for them the other way round."""

    async def scenario() -> None:
        family = Family(how, hangs="bc")
        await family.run(keyed("abc"), dies=True)
        family.hangs = ""
        for _ in range(2):
            assert (await family.run(keyed("cba"))).text == "A,B,C"
            assert sorted(family.asked) == ["a", "b", "b", "c", "c"]

    simulate(scenario)


def test_children_that_race_are_those_of_their_race() -> None:
    """One that has lost before is not the child that is spawned by its key, nor by its query."""

    async def twice(
        family: Family, context: ToolContext, pool: AgentPool, configs: Sequence[SpawnConfig]
    ) -> list[AgentOutcome]:
        won = await raced(family, context, pool, configs)
        family.hangs = family.hangs.replace("b", "")
        return [*won, await context.agent.run_child(SpawnConfig(READER, "b"))]

    async def scenario() -> None:
        family = Family(twice, hangs="bc")
        configs = [SpawnConfig(READER, "a"), SpawnConfig(READER, "b")]
        assert (await family.run(configs)).text == "A,B"
        assert family.asked == ["a", "b", "b"]
        assert (await family.run(configs)).text == "A,B"
        assert len(family.asked) == 3

    simulate(scenario)


def test_a_changed_child_is_named_by_its_own_key() -> None:
    """And not by that of its call."""

    async def scenario() -> None:
        family = Family(spawned, hangs="a")
        await family.run(keyed("a"), dies=True)
        outcome = await family.run([SpawnConfig(READER, "other", key="src/a")])
        text = "ResumeMismatchError: agent 2 with key 'src/a' has already been spawned with another"
        assert text in outcome.text
        assert ResumeMismatchError.__name__ in outcome.text

    simulate(scenario)


async def one_after_the_other(
    _: Family, context: ToolContext, __: AgentPool, configs: Sequence[SpawnConfig]
) -> list[AgentOutcome]:
    """Run children, each when the one before has ended."""
    return [await context.agent.run_child(config) for config in configs]


def test_a_key_given_twice_is_another_child_once_the_first_has_ended() -> None:
    """Side by side it is refused: it could be either."""

    async def scenario() -> None:
        again = [SpawnConfig(READER, one, key="same") for one in ("a", "b")]
        family = Family(one_after_the_other, hangs="b")
        await family.run(again, dies=True)
        family.hangs = ""
        assert (await family.run(again)).text == "A,B"
        assert family.asked == ["a", "b", "b"]
        for how, said in [
            (spawned, "key 'same' already belongs to agent 2"),
            (fanned_out, "key 'same' already belongs to agent 2"),
            (fanned_out_at_once, "key 'same' is the key of two of 2 agents"),
        ]:
            refused = await Family(how).run(again)
            assert refused.status is AgentStatus.COMPLETED
            assert said in refused.text

    simulate(scenario)


# --- pools that an earlier version began


def begun_before() -> InMemoryJournal:
    """Return the journal of a pool that knew racers and children by their order."""
    journal = InMemoryJournal()
    journal._pools["pool"] = [JournalRecord(0, RecordKind.ACCEPTED, body=b'{"run_id":"old"}')]
    return journal


@pytest.mark.parametrize("how", [side_by_side, fanned_out_at_once], ids=["run", "now"])
def test_children_of_an_older_pool_go_on_by_their_order(how: Any) -> None:  # noqa: ANN401  # see Family
    """Whatever their keys: they had none then."""

    async def scenario() -> None:
        family = Family(how, begun_before(), hangs="bc")
        await family.run(keyed("abc"), dies=True)
        spawns = [one.body for one in family.journal._pools["pool"] if b'"key"' in one.body]
        assert [b"/%d" % number in body for number, body in enumerate(spawns)] == [
            False,
            *[True] * 3,
        ]
        family.hangs = ""
        assert (await family.run(keyed("abc"))).text == "A,B,C"
        assert sorted(family.asked) == ["a", "b", "b", "c", "c"]

    simulate(scenario)


def test_racers_of_an_older_pool_are_found_again() -> None:
    """By what they are asked, as they were then."""

    async def scenario() -> None:
        journal, asked = begun_before(), list[CompletionRequest]()

        async def answer(request: CompletionRequest) -> Answer:
            asked.append(request)
            return await after(request)

        for _ in range(2):
            async with open_pool(FunctionDriver(answer), journal=journal, resume=True) as pool:
                outcome = await pool.race([SpawnConfig(READER, one) for one in "21"])
                assert (outcome.text, len(asked)) == ("1", 2)

    simulate(scenario)

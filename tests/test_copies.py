"""What has a state of its own exists once: a copy of it would count the same thing again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import msgspec
import pytest
import trio

from agentpool import (
    AgentManifest,
    Budget,
    ModelConfig,
    SpawnConfig,
    UsageError,
    open_pool,
    open_session,
)
from agentpool.abc import ToolContext
from agentpool.drivers import (
    FallbackDriver,
    GateTicket,
    ProviderGates,
    RequestGate,
    ScriptedDriver,
    open_driver,
)
from agentpool.journal import InMemoryJournal
from agentpool.live import ApprovalDesk, Board
from agentpool.observe import PoolRecord
from agentpool.tools import ToolRegistry
from tests.support.fakes import FakeTool, calling, hanging_driver, job, tool_call

WAYS: dict[str, Callable[[object], object]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy in a list": lambda one: copy.deepcopy([one]),
    "pickle": pickle.dumps,
}

THINGS: dict[str, Callable[[], object]] = {
    "Budget": lambda: Budget(tokens=3),
    "Reservation": lambda: Budget(tokens=3).reserve(tokens=1),
    "RequestGate": RequestGate,
    "GateTicket": lambda: GateTicket(3),
    "ProviderGates": ProviderGates,
    "FallbackDriver": lambda: FallbackDriver(ScriptedDriver(["x"]), ScriptedDriver(["y"])),
    "InMemoryJournal": InMemoryJournal,
    "Board": Board,
    "ApprovalDesk": ApprovalDesk,
}


def refuses(thing: object, name: str) -> None:
    """Hold *thing* against every way of copying."""
    told = f"^{name} cannot be copied or pickled, since both would share its state; pass on the"
    for way in WAYS.values():
        with pytest.raises(TypeError, match=told):
            way(thing)
    replace: Callable[..., object] = type(thing).__replace__  # type: ignore[attr-defined]  # as copy.replace() calls it
    if not hasattr(type(thing), "__attrs_attrs__"):  # those are made by their public constructor
        with pytest.raises(TypeError, match=told):
            replace(thing, name="other")


@pytest.mark.parametrize("name", THINGS)
def test_what_counts_cannot_be_copied(name: str) -> None:
    """A copied reservation was settled twice, and a budget had less than nothing reserved."""
    refuses(THINGS[name](), name)


async def test_what_a_pool_hands_out_cannot_be_copied() -> None:
    """Half of a pool was copied, until a coroutine in its middle could not be."""
    journal = InMemoryJournal()
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job())
        for thing in (pool, handle, pool.router, pool.events(), handle.stream()):
            refuses(thing, type(thing).__name__)
        async with pool.map(AgentManifest(), ["q"]) as outcomes:
            refuses(outcomes, "OutcomeStream")
        pool.abort_all()
    config = ModelConfig(remote_model="m", base_url="http://127.0.0.1:9", provider="anthropic")
    async with open_driver(config) as driver:
        refuses(driver, "AnthropicDriver")
    async with open_session(journal, "anna", ScriptedDriver(["x"])) as session:
        refuses(session, "Session")


async def test_a_tool_settles_its_reservation_once_beside_calls_that_do_the_same() -> None:
    """Five copies gave back five times what was reserved once, in a budget that others share."""
    budget = Budget(tokens=10**6)
    refused = list[str]()

    async def rob(_: str, context: ToolContext) -> str:
        assert context.budget is not None
        reservation = context.budget.reserve(tokens=400)
        await trio.sleep(1)
        for again in (copy.copy, msgspec.structs.replace, copy.deepcopy):
            try:
                again(reservation).refund()
            except (TypeError, UsageError) as error:
                refused.append(str(error))
        with trio.move_on_after(1):
            await trio.sleep(5)
        reservation.commit(tokens=100)
        return "ok"

    driver = ScriptedDriver([calling(tool_call("rob", "1"), tool_call("rob", "2")), "done"])
    async with open_pool(driver, tools=ToolRegistry([FakeTool("rob", rob)]), budget=budget) as pool:
        outcome = await (await pool.spawn(job())).wait()
    now = budget.statistics().tokens
    assert outcome.text == "done"
    assert (now.reserved, now.committed - outcome.usage.total_tokens) == (0, 200)
    assert len(refused) == 6


def test_a_reservation_made_from_another_holds_nothing() -> None:
    """Msgspec makes one without asking; the ledger knows that it never gave it out."""
    budget = Budget(tokens=100)
    reservation = budget.reserve(tokens=90)
    twin = msgspec.structs.replace(reservation)
    for settle in (twin.refund, twin.charge, lambda: twin.commit(tokens=1)):
        with pytest.raises(UsageError, match="or is a copy"):
            settle()
    assert budget.statistics().tokens.reserved == 90
    reservation.refund()
    assert (budget.statistics().tokens.reserved, budget.statistics().tokens.committed) == (0, 0)


def test_copies_of_a_config_spend_from_one_budget() -> None:
    """A deep copy ended in a RecursionError; a budget of its own would double the limit."""
    budget = Budget(tokens=3)
    manifest = AgentManifest(model=ModelConfig(options={"a": [1]}))
    config = SpawnConfig(manifest, "q", budget=budget, name="n")
    for made in (copy.copy(config), copy.deepcopy(config), copy.deepcopy({"a": [config]})["a"][0]):
        assert made == config
        assert made is not config
        assert made.budget is budget
    assert copy.deepcopy(config).manifest.model.options["a"] is not manifest.model.options["a"]
    with pytest.raises(TypeError, match=r"^Budget cannot be copied or pickled"):
        pickle.dumps(config)
    plain = msgspec.structs.replace(config, budget=None)
    assert pickle.loads(pickle.dumps(plain)) == plain == copy.deepcopy(plain)


def test_what_was_only_collected_can_be_copied() -> None:
    """A report is data, whoever sends it to another process."""
    record = PoolRecord(seconds=3.0)
    for made in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert (made.seconds, made.bill.requests) == (3.0, 0)

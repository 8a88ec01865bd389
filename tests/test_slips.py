"""Slips in a program: each error says what was given and what to write."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest

from agentpool import (
    AgentManifest,
    Budget,
    Capability,
    ManifestError,
    ModelConfig,
    PrivacyTier,
    SpawnConfig,
    UsageError,
    UserMessage,
    open_manifest_pool,
    open_pool,
    open_session,
)
from agentpool.drivers import ScriptedDriver
from agentpool.journal import InMemoryJournal, open_journal
from agentpool.memory import open_sqlite_memory
from agentpool.testing import simulate
from agentpool.tools import tool
from tests.support.fakes import hanging_driver, job, manifest

# Type checkers find all of these, and are not asked.
POOL: Any = open_pool
CONFIG: Any = SpawnConfig
TOOL: Any = tool
BUDGET: Any = Budget
GRANT: Any = Capability
MANIFEST: Any = AgentManifest
SIMULATE: Any = simulate


@pytest.mark.parametrize(
    ("slip", "says"),
    [
        (lambda: CONFIG(manifest(), "x", out_type=int), "SpawnConfig() takes no 'out_type'; did"),
        (lambda: CONFIG(manifest(), "x", 3), "SpawnConfig(): too many positional arguments; it"),
        (
            lambda: POOL(hanging_driver(), max_concurent=3),
            "open_pool() takes no 'max_concurent'; did you mean max_concurrent?",
        ),
        (lambda: TOOL(capabilty=None), "tool() takes no 'capabilty'; did you mean capability?"),
    ],
)  # fmt: skip
def test_an_argument_that_is_none_is_told_which_there_are(
    slip: Callable[[], object], says: str
) -> None:
    """Of functions and of classes."""
    with pytest.raises(TypeError, match=re.escape(says)):
        slip()


async def test_an_agent_is_one_spawn_config() -> None:
    """A manifest and a query beside each other are the first that one tries."""
    async with open_pool(ScriptedDriver(["x"])) as opened:
        pool: Any = opened
        for spawn in (pool.spawn, pool.spawn_nowait):
            name = f"pool.{spawn.__name__}"
            says = f"{name}() takes one SpawnConfig; write {name}(SpawnConfig(manifest, query))"
            with pytest.raises(TypeError, match=re.escape(says)):
                spawn(manifest(), "x")
        outcome = await (await pool.spawn(job())).wait()
        assert outcome.text == "x"


@pytest.mark.parametrize("use", [list, lambda pool: 1 in pool, lambda pool: [*map(str, pool)]])
async def test_a_pool_is_no_collection(use: Callable[[Any], object]) -> None:
    """Though it has agents by number: Python would ask it for agent 0, and then for all others."""
    async with open_pool(ScriptedDriver(["x"])) as pool:
        await (await pool.spawn(job())).wait()
        with pytest.raises(
            TypeError, match=r"await pool\.join_all\(\)` has all outcomes, and `pool\["
        ):
            use(pool)


async def test_a_turn_is_one_spawn_config() -> None:
    """Not the text alone, as in other libraries."""
    async with open_session(InMemoryJournal(), "anna", hanging_driver()) as opened:
        session: Any = opened
        with pytest.raises(UsageError, match=r"config must be a SpawnConfig, got a value of type"):
            await session.ask("hi")
        with pytest.raises(TypeError, match=r"write session.ask\(SpawnConfig\(manifest, query\)\)"):
            await session.ask(manifest(), "hi")


async def _awaited(block: Any) -> None:  # noqa: ANN401  # what is no block
    await block


async def _gone_over(block: Any) -> None:  # noqa: ANN401  # see above
    async for _ in block:
        pass


async def _listed(block: Any) -> None:  # noqa: ANN401, ASYNC124  # see above
    list(block)


async def _with(block: Any) -> None:  # noqa: ANN401, ASYNC124  # see above
    with block:
        pass


@pytest.mark.parametrize("use", [_awaited, _gone_over, _listed, _with])
async def test_a_block_that_is_not_entered_says_how(use: Callable[[Any], Awaitable[None]]) -> None:
    """Of a pool, and of a map."""
    with pytest.raises(UsageError, match=r"async with open_pool\(...\) as pool, and use pool in"):
        await use(open_pool(hanging_driver()))
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match=r"async with pool.map\(...\) as outcomes, and use o"):
            await use(pool.map(manifest(), ["a"]))


def test_what_a_pool_has_a_block_has_not() -> None:
    """And `hasattr` says so."""
    block: Any = open_pool(hanging_driver())
    with pytest.raises(AttributeError) as caught:
        block.spawn(job())
    assert str(caught.value) == (
        "this is what open_pool() returns; enter it: async with open_pool(...) as pool, and use "
        "pool.spawn in the block"
    )
    assert not hasattr(block, "spawn")


@pytest.mark.parametrize(
    "face",
    ["agentpool", "drivers", "tools", "memory", "journal", "live", "testing", "cluster"],
)
def test_whatever_opens_something_says_how_to_enter_it(face: str) -> None:
    """Each public function that returns a block."""
    module = import_module("agentpool" if face == "agentpool" else f"agentpool.{face}")
    opens = {
        name: getattr(module, name)
        for name in module.__all__
        if "asynccontextmanager" in repr(getattr(module, name, None).__class__)
        or getattr(getattr(module, name), "__wrapped__", None) is not None
    }
    for name, function in opens.items():
        if isinstance(function, type) or name in {"as_bystander", "operation", "tool"}:
            continue
        assert function.__code__.co_name == "open_block", name


@pytest.mark.parametrize(
    ("slip", "says"),
    [
        (
            lambda: POOL(hanging_driver(), journal=open_journal("j.db")),
            (
                "journal must be a Journal or None, got what open_journal() returns; enter it: "
                "async with open_journal(...) as journal; see help(open_pool)"
            ),
        ),
        (
            lambda: open_session(open_journal("j.db"), "x", hanging_driver()),  # type: ignore[arg-type]
            (
                "journal must be a Journal, got what open_journal() returns; enter it: "
                "async with open_journal(...) as journal; see help(open_session)"
            ),
        ),
        (
            lambda: POOL(hanging_driver(), journal="talks.db"),
            (
                "journal must be a Journal or None, got a value of type str; write async with "
                "open_journal(path) as journal, and give the journal; see help(open_pool)"
            ),
        ),
        (
            lambda: POOL(hanging_driver(), memory=open_sqlite_memory("m.db")),
            (
                "memory must be a Memory, got what open_sqlite_memory() returns; enter it: "
                "async with open_sqlite_memory(...) as memory; write"
            ),
        ),
    ],
)
async def test_a_file_in_the_place_of_what_it_opens_to_is_told(
    slip: Callable[[], AbstractAsyncContextManager[object]], says: str
) -> None:
    """Its name, or the block that opens it."""
    with pytest.raises(UsageError, match=re.escape(says)):
        async with slip():
            pass


@dataclass
class _Point:
    """An answer with a field that JSON has no form for."""

    x: int
    z: complex


def _misspelt(q: str) -> str:  # noqa: D417  # see below
    """Search.

    Args:
        qq: What for.
    """
    return ""


@pytest.mark.parametrize(
    ("slip", "says"),
    [
        (
            lambda: BUDGET(store="k.db", per="day"),
            "store must be a BudgetStore or None, got a value of type str; write async with open_j",
        ),
        (
            lambda: BUDGET(per="daily", store=InMemoryJournal()),
            "per must be 'hour', 'day', 'month', 'ever' or None, got 'daily'; see help(Budget)",
        ),
        (
            lambda: TOOL(capability="raag"),
            (
                "capability must be a Capability or None, got a value of type str; write a "
                "Capability, such as Capability(CapabilityKind.RAG) or Capability.shell('git'); "
                "see help(tool)"
            ),
        ),
        (
            lambda: CONFIG(manifest(), "x", limits=Budget(tokens=1)),
            (
                "limits must be a UsageLimits or None, got a value of type Budget; did you mean "
                "budget=?; see help(SpawnConfig)"
            ),
        ),
        (
            lambda: CONFIG(manifest(), "x", limits=manifest().model),
            "limits must be a UsageLimits or None, got a value of type ModelConfig; see help",
        ),
        (
            lambda: GRANT.file_read([".", "x"]),
            (
                "each item in scope must be a str, got a value of type list; write the texts one "
                "by one, without brackets; see help(Capability)"
            ),
        ),
        (
            lambda: CONFIG(manifest(), "x", deadline_seconds="5"),
            "deadline_seconds must be a float or None, got '5'; see help(SpawnConfig)",
        ),
        (
            lambda: CONFIG(manifest(), "x", deadline_seconds="sk-12345678"),
            "deadline_seconds must be a float or None, got a value of type str; see help",
        ),
        (
            lambda: MANIFEST(privacy="Standard"),
            (
                "privacy must be a PrivacyTier, got a value of type str; write "
                "PrivacyTier.STANDARD; see help(AgentManifest)"
            ),
        ),
        (
            lambda: MANIFEST(privacy="public"),
            "got a value of type str; it has PrivacyTier.SOVEREIGN, PrivacyTier.PRIVATE, Priv",
        ),
        (
            lambda: MANIFEST(model="gpt-5"),
            (
                "model must be a ModelConfig, got a value of type str; write "
                "ModelConfig(remote_model=...); see help(AgentManifest)"
            ),
        ),
        (
            lambda: SIMULATE(lambda: 3),
            (
                "the scenario must be an async function, or return an awaitable, got a value "
                "of type int; write async def"
            ),
        ),
        (
            lambda: tool(_misspelt),
            (
                "the docstring of _misspelt describes 'qq', which is not a parameter; did you "
                "mean 'q'?"
            ),
        ),
    ],
)
def test_a_wrong_value_is_told_what_to_write(slip: Callable[[], object], says: str) -> None:
    """And is not quoted if it may be a key."""
    with pytest.raises(UsageError, match=re.escape(says)):
        slip()


def test_a_docstring_may_describe_what_is_no_parameter() -> None:
    """Only one that nearly is one is a slip."""

    @tool
    def search(q: str) -> str:  # noqa: D417  # as above
        """Search.

        Args:
            limit: How many; there is none any more.
        """
        return q

    assert search("x") == "x"


async def test_a_field_that_has_no_form_is_named() -> None:
    """A class may have twenty."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match="output_type _Point, field 'z', cannot be read from"):
            await pool.spawn(SpawnConfig(manifest(), "x", output_type=_Point))


async def test_a_step_of_a_script_is_named() -> None:
    """There is no function that returned it."""
    steps: Any = ["yes", {"text": "x"}]
    async with open_pool(ScriptedDriver(steps)) as pool:
        outcomes = [await (await pool.spawn(job())).wait() for _ in steps]
    assert outcomes[0].text == "yes"
    assert str(outcomes[1].error) == (
        "step 2 of the script must be text, a Completion or an error, got a value of type dict; "
        "write 'text', say('text') or call('tool', key='value')"
    )


def test_the_name_of_a_manifest_is_no_manifest() -> None:
    """TOML is what is in the file."""
    with pytest.raises(ManifestError, match=r"'reader.toml' is the name of a file; write AgentMa"):
        AgentManifest.parse("reader.toml")


def test_what_is_right_goes_through() -> None:
    """A block is as it was."""

    async def scenario() -> None:
        async with (
            open_pool(ScriptedDriver(["x", "y"])) as pool,
            pool.map(manifest(), ["a", "b"]) as outcomes,
        ):
            assert sorted([one.text async for one in outcomes]) == ["x", "y"]

    simulate(scenario)
    assert AgentManifest(model=ModelConfig(), privacy=PrivacyTier.SOVEREIGN).name
    assert open_manifest_pool.__name__ == "open_manifest_pool"


def test_a_list_of_messages_is_taken_for_a_tuple() -> None:
    """As for every other config: the value itself has a tuple."""
    history = [UserMessage("before")]
    config = SpawnConfig(AgentManifest(), "hi", history=history)  # type: ignore[arg-type]
    assert config.history == tuple(history)


def test_an_error_that_says_nothing_of_arguments_comes_out_as_it_is() -> None:
    """What a value of the user's own class raises is no slip in a call."""

    class Odd(str):
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            raise TypeError("of its own")

        __hash__ = str.__hash__

    with pytest.raises(TypeError, match=r"^of its own$"):
        SpawnConfig(AgentManifest(), "hi", group=Odd("hi"))

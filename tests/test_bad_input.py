"""What a newcomer passes by mistake is refused at once, with what was expected."""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import BaseModel

import agentpool
from agentpool import (
    OWNER_ID,
    AgentManifest,
    AgentPool,
    Budget,
    BudgetConfig,
    Capability,
    CapabilityKind,
    ContextConfig,
    ManifestError,
    McpServerConfig,
    McpTransport,
    ModelConfig,
    PoolPlan,
    ResourceQuota,
    RestartPolicy,
    RetryPolicy,
    SpawnConfig,
    UsageError,
    UsageLimits,
    abc,
    drivers,
    open_drivers,
    open_manifest_pool,
    open_pool,
)
from agentpool.abc import Fragment, MemoryQuery
from agentpool.drivers import (
    Attachment,
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    ProviderGates,
    RequestGate,
    ScriptedDriver,
    open_anthropic,
    open_driver,
    open_local,
    open_openai,
)
from agentpool.journal import open_journal
from agentpool.memory import InMemoryMemory, open_sqlite_memory
from agentpool.observe import LoggingObserver, TraceWriter, read_trace, record_of
from agentpool.testing import (
    FaultyDriver,
    LatencyDriver,
    cancel_everywhere,
    explore,
    simulate,
)
from agentpool.tools import (
    ToolRegistry,
    file_tools,
    inference_tools,
    memory_tools,
    open_mcp_servers,
    shell_tools,
    tool,
)
from tests.support.fakes import FakeTool, Recorder, hanging_driver, job, manifest


class WrongThing:
    """What no parameter takes."""


# Types are what these tests get wrong, so the checker is not asked.
ANY: Any = None
WRONG: Any = "hi"
CLASS: Any = FunctionDriver


async def _scenario() -> None: ...


def _echo(_: str, __: object) -> str:
    return ""


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: SpawnConfig(WRONG, manifest()), "manifest must be an AgentManifest, got a val"),  # type: ignore[arg-type]
        (lambda: SpawnConfig(manifest(), ANY), "query must be a str, got None"),
        (
            lambda: SpawnConfig(manifest(), "x", limits=WRONG),
            "limits must be a UsageLimits or None",
        ),
        (lambda: SpawnConfig(manifest(), "x", budget=WRONG), "budget must be a Budget"),
        (lambda: AgentManifest(budget=WRONG), "budget must be a BudgetConfig or None, got"),
        (lambda: AgentManifest(mcp_servers=WRONG), "mcp_servers must be a tuple, got"),
        (lambda: AgentManifest(mcp_servers=ANY), "mcp_servers must be a tuple, got None"),
        (lambda: AgentManifest(mcp_servers=(WRONG,)), "each item in mcp_servers must be a"),
        (lambda: ModelConfig(remote_model="x", price=WRONG), "price must be a TokenPrice or No"),
        (lambda: Budget(tokens=1, parent=WRONG), "parent must be a Budget"),
        (lambda: FallbackDriver(hanging_driver(), WRONG), "each driver must be a Driver"),
        (lambda: GatedDriver(WRONG, RequestGate()), "driver must be a Driver, got a value of ty"),
        (lambda: GatedDriver(hanging_driver(), WRONG), "gate must be a RequestGate"),
        (lambda: GatedDriver(CLASS, RequestGate()), "got the class FunctionDriver"),
        (lambda: FunctionDriver(WRONG), "function must be a function of a request"),
        (lambda: ScriptedDriver(WRONG), "steps must be an iterable of answers"),
        (lambda: ScriptedDriver(ANY), "steps must be an iterable of answers, got None"),
        (lambda: ToolRegistry(WRONG), "tools must be an iterable of tools"),
        (lambda: ToolRegistry(ANY or FakeTool("x", _echo)), r"write ToolRegistry\(\[tool\]\)"),  # type: ignore[arg-type]
        (
            lambda: shell_tools([], environ={}, seconds=ANY or True),
            "seconds must be a float, got a value of type bool",
        ),
        (lambda: tool(WRONG), "@tool must decorate a function"),
        (lambda: explore(WRONG), "the scenario must be an async function"),
        (lambda: simulate(WRONG), "the scenario must be an async function"),
        (lambda: cancel_everywhere(WRONG), "the scenario must be an async function"),
    ],
)
def test_what_is_built_of_the_wrong_kind_is_refused(build: Callable[[], object], text: str) -> None:
    """When it is made, not where it is used."""
    with pytest.raises(UsageError, match=text):
        build()


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\nb\x1b[31m", "\x00"])
async def test_a_name_is_one_line_of_printable_text(name: str) -> None:
    """As in a manifest: people read it in a terminal."""
    says = re.escape(f"name must be one line of printable text, got {name!r}")
    with pytest.raises(UsageError, match=says):
        SpawnConfig(manifest(), "go", name=name)
    with pytest.raises(UsageError, match=says):
        Budget(name=name)
    with pytest.raises(UsageError, match=says):
        RequestGate(name)
    with pytest.raises(UsageError, match=says):
        async with open_pool(ScriptedDriver(["a"]), name=name):
            raise AssertionError


def test_a_coroutine_in_place_of_a_function_is_named_and_closed() -> None:
    """``explore(main())`` is the usual slip; Python would warn of it at another place."""
    called: Any = _scenario()
    with pytest.raises(UsageError, match="pass main, not what main"):
        explore(called)


class _Duck:
    """What has the method of a driver, and is none."""

    async def complete(self, request: object) -> str:
        """Answer."""
        await trio.lowlevel.checkpoint()
        return str(request)


class _Registered(_Duck):
    """What says that it is a driver, and has nothing of one."""


abc.Driver.register(_Registered)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"driver": "gpt-5"}, "driver must be a Driver, or a function from a manifest to one"),
        ({"driver": None}, "open one with agentpool.drivers.open_driver"),
        ({"tools": [FakeTool("x", _echo)]}, "tools must be a ToolRegistry"),  # type: ignore[arg-type]
        ({"memory": "notes.db"}, "memory must be a Memory"),
        ({"budget": 3}, "budget must be a Budget"),
        ({"approve": "always"}, "approve must be a function"),
        (
            {"approve": _Duck},
            r"be a function, got the class _Duck; write _Duck\(",
        ),
        (
            {"driver": FunctionDriver},
            r"the class FunctionDriver; write FunctionDriver\(",
        ),
        ({"driver": _Duck()}, "let _Duck inherit from agentpool.abc.Driver$"),
        ({"driver": _Duck}, r"let _Duck inherit from agentpool.abc.Driver, and write _Duck\("),
        ({"driver": _Registered()}, "_Registered lacks privacy, context_window, .* let it inherit"),
        (
            {"observers": [LoggingObserver]},
            r"got the class LoggingObserver; write LoggingObserver\(",
        ),
        ({"observers": [_Duck()]}, "type _Duck; inherit from Observer"),
        ({"request_retries": 3}, "request_retries must be a RetryPolicy, got a value of type int"),
        ({"observers": Recorder()}, "observers must be a sequence of Observer objects"),
        ({"observers": [print]}, "each observer must be an Observer, got a value of type builtin"),
    ],
)
async def test_a_pool_of_the_wrong_parts_does_not_open(
    arguments: dict[str, Any], text: str
) -> None:
    """Before anything has been opened."""
    with pytest.raises(UsageError, match=text):
        async with open_pool(**{"driver": hanging_driver(), **arguments}):
            pass


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda pool: pool.spawn(WRONG), "config must be a SpawnConfig"),
        (lambda pool: pool.spawn(manifest()), r"write SpawnConfig\(manifest, query\)"),
        (lambda pool: pool.fan_out(job()), "configs must be an iterable of SpawnConfig objects"),
        (lambda pool: pool.fan_out(ANY), "configs must be an iterable of SpawnConfig objects"),
        (lambda pool: pool.fan_out([WRONG]), "config must be a SpawnConfig"),
        (lambda pool: pool.race(job()), "configs must be an iterable"),
        (lambda pool: pool.race("ab"), "configs must be an iterable"),
        (lambda pool: pool.supervise(job()), "configs must be an iterable"),
        (lambda pool: pool.broadcast(3), "content must be a str"),
        (lambda pool: pool.router.send(1, None), "content must be a str, got None"),
        (lambda pool: pool[1].ask(b"x"), "content must be a str, got a value of type bytes"),
    ],
)
async def test_what_a_pool_is_given_is_checked(
    call: Callable[[Any], Awaitable[object]], text: str
) -> None:
    """And nothing has changed: no agent, no message."""
    async with open_pool(hanging_driver()) as pool:
        await pool.spawn(job())
        before = pool.statistics()
        with pytest.raises(UsageError, match=text):
            await call(pool)
        assert pool.statistics() == before
        pool.abort_all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda pool: pool.map(WRONG, ["a"]), "manifest must be an AgentManifest"),
        (lambda pool: pool.map(WRONG, []), "manifest must be an AgentManifest"),
        (lambda pool: pool.map(manifest(), "one query"), "must be an iterable of queries"),
        (lambda pool: pool.map(manifest(), ["a"], None), "must be an iterable of queries"),
    ],
)
async def test_what_a_map_is_given_is_checked(
    call: Callable[[AgentPool], AbstractAsyncContextManager[object]], text: str
) -> None:
    """A text is one query, and not as many as it has letters."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match=text):
            async with call(pool):
                pass


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (job(), r"type SpawnConfig; pool\.fan_out\(configs\) takes SpawnConfig objects"),
        (1, r"type int; write pool\.map\(manifest, \[query, \.\.\.\]\)"),
    ],
)
async def test_a_map_is_given_queries(query: Any, text: str) -> None:  # noqa: ANN401  # what is no query
    """Where a config was given, to write a config is no advice."""
    async with open_pool(hanging_driver()) as pool:
        with pytest.raises(UsageError, match=text):
            async with pool.map(manifest(), [query]) as outcomes:
                await anext(outcomes)


async def test_a_nowait_spawn_checks_as_well() -> None:
    """Of one agent and of many."""
    async with open_pool(hanging_driver()) as pool:
        for call in (pool.spawn_nowait, pool.fan_out_nowait):
            with pytest.raises(UsageError, match="SpawnConfig"):
                call(WRONG)
        assert pool.router.live_ids() == (OWNER_ID,)


async def test_a_driver_is_opened_of_a_model() -> None:
    """And not of its name; a key that was passed by mistake is not quoted."""
    key: Any = "sk-secret"
    with pytest.raises(UsageError, match="model must be a ModelConfig") as caught:
        async with open_driver(key):
            pass
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("open_pool", lambda: open_pool(hanging_driver())),
        ("open_driver", lambda: open_driver(manifest().model)),
        (
            "open_manifest_pool",
            lambda: open_manifest_pool(PoolPlan(manifests=(manifest(),), driver=hanging_driver())),
        ),
        ("open_mcp_servers", open_mcp_servers),
        ("open_journal", lambda: open_journal("never.db")),
        ("open_sqlite_memory", lambda: open_sqlite_memory("never.db")),
        ("TraceWriter", lambda: TraceWriter("never.trace")),
    ],
)
def test_asyncio_is_told_to_be_trio(
    name: str, opening: Callable[[], AbstractAsyncContextManager[object]]
) -> None:
    """``asyncio.run(main())`` is what most tutorials write."""

    async def main() -> None:
        async with opening():
            pass

    says = rf"{name}\(\) needs trio; run .* trio.run\(main\).* asyncio.to_thread\(trio.run, main\)"
    with pytest.raises(UsageError, match=says):
        asyncio.run(main())


async def test_a_driver_that_was_not_entered_is_refused_when_the_pool_opens() -> None:
    """Of a pool, of a plan, and of a function that chooses; each says what to write."""
    model = ModelConfig(remote_model="m", base_url="http://localhost:1")
    advice = r"got what open_driver\(\) returns; enter it: async with open_driver\(...\) as driver"
    closed: Any = open_driver(model)
    with pytest.raises(UsageError, match=advice):
        async with open_pool(closed):
            pass
    with pytest.raises(UsageError, match=advice):
        PoolPlan(manifests=(manifest(),), driver=closed)
    async with open_pool(lambda _: closed) as pool:
        with pytest.raises(UsageError, match=advice):
            await pool.spawn(job())


async def test_a_function_that_answers_is_no_driver() -> None:
    """It is called with a manifest, and its text is no driver."""
    answering: Any = lambda _: "x"  # noqa: E731  # as one writes it
    async with open_pool(answering) as pool:
        with pytest.raises(UsageError, match=r"a function that answers is FunctionDriver\(f\)"):
            await pool.spawn(job())


async def test_a_spawn_from_another_thread_is_told_to_be_on_trio() -> None:
    """It is where a web server of threads would call it."""
    async with open_pool(hanging_driver()) as pool:

        def elsewhere() -> None:
            with pytest.raises(
                UsageError, match=r"pool.spawn_nowait\(\) needs trio, and was called in"
            ):
                pool.spawn_nowait(job())
            with pytest.raises(UsageError, match=r"pool.spawn\(\) needs trio, and was called in"):
                asyncio.run(_awaited(pool.spawn(job())))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(30)
        assert pool.statistics().spawned == 0


async def _awaited(spawning: Awaitable[object]) -> None:
    await spawning


def _parameters(function: Callable[..., object]) -> list[str]:
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_POSITIONAL and name not in UNCHECKED
    ]


UNCHECKED = {
    "args",  # handed on to the scenario
    "output_type",  # what msgspec can read, and only building it says what that is
    "environ",  # of open_driver(): read only for a model behind an API, whose key is checked
    "factory",
}
MODEL = ModelConfig(provider="ollama", remote_model="m")
GOOD: dict[Callable[..., Any], dict[str, object]] = {
    SpawnConfig: {"manifest": manifest(), "query": "x"},
    AgentManifest: {},
    AgentManifest.parse: {"text": ""},
    AgentManifest.load: {"path": "x.toml"},
    ModelConfig: {},
    ResourceQuota: {},
    UsageLimits: {},
    ContextConfig: {},
    BudgetConfig: {"per": "day", "requests": 1},
    RestartPolicy: {},
    RetryPolicy: {},
    Capability: {"kind": CapabilityKind.RAG},
    McpServerConfig: {"name": "a", "transport": McpTransport.STDIO, "command": ("a",)},
    Budget: {},
    PoolPlan: {"manifests": (manifest(),)},
    Attachment.load: {"path": "x.png"},
    Fragment: {"content": "x", "scope": "s"},
    MemoryQuery: {"text": "x", "scope": "s"},
    FunctionDriver: {"function": _echo},
    ScriptedDriver: {"steps": ["x"]},
    RequestGate: {},
    ProviderGates: {},
    GatedDriver: {"driver": hanging_driver(), "gate": RequestGate()},
    open_pool: {"driver": hanging_driver()},
    open_driver: {"model": MODEL},
    open_openai: {"model": "m", "base_url": "http://localhost/v1"},
    open_anthropic: {"model": "m", "base_url": "http://localhost/v1"},
    open_local: {},
    open_drivers: {"manifests": [manifest()]},
    open_manifest_pool: {"plan": PoolPlan(manifests=(manifest(),))},
    open_journal: {"path": "x.db"},
    open_sqlite_memory: {"path": "x.db"},
    open_mcp_servers: {},
    file_tools: {"grants": ()},
    shell_tools: {"grants": (), "environ": {}},
    memory_tools: {"memory": InMemoryMemory(), "scope": "s"},
    inference_tools: {"driver": hanging_driver()},
    TraceWriter: {"path": "x.jsonl"},
    LoggingObserver: {},
    read_trace: {"path": "x.jsonl"},
    record_of: {"events": []},
    FaultyDriver: {"plan": []},
    LatencyDriver: {"driver": hanging_driver()},
}


@pytest.mark.parametrize(
    ("function", "name"),
    [(function, name) for function in GOOD for name in _parameters(function)],
    ids=lambda value: getattr(value, "__qualname__", value),
)
def test_each_argument_of_a_wrong_type_is_named(function: Callable[..., Any], name: str) -> None:
    """By the class or function itself, before it has done anything."""

    async def enter() -> None:
        made = function(**{**GOOD[function], name: WrongThing()})
        if isinstance(made, AbstractAsyncContextManager):
            async with made:
                pass

    with pytest.raises((UsageError, ManifestError), match=rf"\b{name}\b"):
        trio.run(enter)


async def test_a_memory_is_given_fragments_and_queries(tmp_path: Path) -> None:
    """A text alone says neither whose it is nor where it came from."""
    async with open_sqlite_memory(tmp_path / "a.db") as on_disk:
        for memory in (InMemoryMemory(), on_disk):
            with pytest.raises(UsageError, match="fragment must be a Fragment, got a value of"):
                await memory.remember(WRONG)
            with pytest.raises(UsageError, match="query must be a MemoryQuery, got a value of"):
                await memory.recall(WRONG)
            with pytest.raises(UsageError, match="fragment_id must be a str, got None"):
                await memory.forget(ANY)


def test_a_list_in_the_place_of_a_tuple_is_taken_for_one() -> None:
    """Square brackets are what most people write, and a frozen value keeps its own copy."""
    grants: Any = [Capability.shell("git")]
    granted = AgentManifest(capabilities=grants)
    grants.clear()
    assert granted.capabilities == (Capability.shell("git"),)
    with pytest.raises(UsageError, match="each item in capabilities must be a Capability, got a"):
        AgentManifest(capabilities=ANY or ["shell"])  # type: ignore[arg-type]


def test_a_fixed_word_is_shown_with_what_there_is() -> None:
    """A word that was mistyped is not a secret; whatever else was passed may be one."""
    with pytest.raises(UsageError) as caught:
        open_journal("x.db", durability=WRONG).__aenter__().send(None)
    assert str(caught.value) == (
        "durability must be 'process', 'power' or None, got 'hi'; see help(open_journal)"
    )


async def test_a_pool_ends_within_a_time_that_is_one() -> None:
    """Before it has asked any agent to stop."""
    async with open_pool(hanging_driver()) as pool:
        handle = await pool.spawn(job())
        for seconds in (-1, float("nan"), WRONG):
            with pytest.raises(UsageError, match="grace_seconds must be"):
                await pool.shutdown(grace_seconds=seconds)
        with pytest.raises(UsageError, match="reason must be a str, got a value of type int"):
            handle.cancel(ANY or 3)  # type: ignore[arg-type]
        await pool.spawn(job())
        pool.abort_all()


def test_a_proxy_is_a_url() -> None:
    """It is not quoted, since it may have a password in it."""

    async def enter() -> None:
        async with open_openai("m", base_url="http://localhost/v1", proxy="me:secret@place"):
            pass

    with pytest.raises(UsageError, match=r"^proxy is not a URL; write it as http://host:port$"):
        trio.run(enter)


class Verdict(BaseModel):
    """A form that is not read."""

    text: str


@pytest.mark.parametrize(
    ("output_type", "says"),
    [
        ("Review", "got 'Review'; give the class itself, without quotes"),
        (list, "got <class 'list'>; write a class with one field, which is the list"),
        (list[int], "got list[int]; write a class with one field, which is the list"),
        (dict, "got <class 'dict'>; write a class with a field for each thing"),
        (int, "got <class 'int'>; write a class with a field for each thing"),
        (Verdict, "write it as a dataclass or a msgspec struct: pydantic models are not supported"),
    ],
)
def test_an_output_type_that_cannot_be_read_is_refused_at_once(
    output_type: Any,  # noqa: ANN401  # as a newcomer's
    says: str,
) -> None:
    """Where it is written, and not by a spawn that is far away."""
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        SpawnConfig(manifest(), "?", output_type=output_type)
    assert "output_type must be an attrs class, a dataclass, a TypedDict" in str(caught.value)


def _build(kind: Any, *given: object, **named: object) -> object:  # noqa: ANN401  # any class
    return kind(*given, **named)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: _build(AgentManifest, "reader"),
            "takes its arguments by name, got 1 without a name; write AgentManifest(name=...), or",
        ),
        (
            lambda: _build(AgentManifest, nmae="reader"),
            "AgentManifest() takes no 'nmae'; did you mean name?",
        ),
        (
            lambda: _build(AgentManifest, name="reader", nmae="reader"),
            "AgentManifest() takes no 'nmae'; did you mean name?",
        ),
        (
            lambda: _build(Budget, 1000),
            "got 1 without a name; write Budget(tokens=...), or another",
        ),
        (lambda: _build(Budget, dollars=5), "takes no 'dollars'; did you mean cost_usd?"),
        (lambda: _build(ModelConfig, "x"), "write ModelConfig(remote_model=...), or another"),
        (lambda: _build(ModelConfig, name="x"), "takes no 'name'; did you mean remote_model?"),
        (lambda: _build(UsageLimits, requests=3), "no 'requests'; did you mean request_limit?"),
        (lambda: _build(RetryPolicy, tries=3), "RetryPolicy() takes no 'tries'; it takes max_att"),
        (lambda: _build(PoolPlan), "PoolPlan(): missing a required argument: 'manifests'; it t"),
        (lambda: _build(PoolPlan, manifest=1), "takes no 'manifest'; did you mean manifests?"),
    ],
)
def test_a_wrong_call_says_what_to_write_instead(build: Callable[[], object], says: str) -> None:
    """Python's own words are about positions, which nobody thinks of."""
    with pytest.raises(TypeError, match=re.escape(says)):
        build()


def test_an_error_from_within_a_call_stays_as_it_is() -> None:
    """It is not about the names of arguments."""

    class Odd(list[AgentManifest]):
        __slots__ = ()

        def __len__(self) -> int:
            raise TypeError("odd")

    with pytest.raises(TypeError, match=r"^odd$"):
        PoolPlan(manifests=Odd())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("look_up", "says"),
    [
        (lambda: getattr(agentpool, "ScriptedDriver"), "it is agentpool.drivers.ScriptedDriver"),  # noqa: B009  # it is not there
        (lambda: getattr(agentpool, "tool"), "it is agentpool.tools.tool"),  # noqa: B009  # the same
        (lambda: getattr(agentpool, "open_driver"), "it is agentpool.drivers.open_driver"),  # noqa: B009
        (lambda: getattr(drivers, "SpawnConfig"), "it is agentpool.SpawnConfig"),  # noqa: B009
        (lambda: getattr(agentpool, "Frobnicator"), "has no attribute 'Frobnicator'"),  # noqa: B009
    ],
)
def test_a_name_of_another_module_says_which(look_up: Callable[[], object], says: str) -> None:
    """There are nine public modules."""
    with pytest.raises(AttributeError) as caught:
        look_up()
    assert str(caught.value).endswith(says)


async def test_names_of_other_libraries_are_answered_with_ours() -> None:
    """Those of a pool and of an outcome."""
    async with open_pool(ScriptedDriver(["yes"])) as pool:
        outcome: Any = await (await pool.spawn(job())).wait()
        untyped: Any = pool
        for name, says in (("run", "pool.spawn("), ("ask", "pool.spawn("), ("gather", "fan_out(")):
            with pytest.raises(AttributeError, match=re.escape(says)):
                getattr(untyped, name)
        with pytest.raises(AttributeError, match=r"^'AgentPool' object has no attribute 'frob'$"):
            untyped.frob  # noqa: B018  # it is not there
        with pytest.raises(AttributeError, match="it is `cost_usd`"):
            outcome.cost  # noqa: B018  # it is not there

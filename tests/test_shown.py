"""What a prompt, a log and `rich` show of the objects that users hold."""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import msgspec
import pytest
from rich.pretty import pretty_repr

from agentpool import Budget, open_pool, open_session
from agentpool.abc import (
    Completion,
    CompletionRequest,
    Driver,
    Observer,
    OnDelta,
    PrivacyTier,
    Usage,
)
from agentpool.drivers import (
    Attachment,
    FallbackDriver,
    FunctionDriver,
    GatedDriver,
    ProviderGates,
    RequestGate,
    ScriptedDriver,
    open_anthropic,
    open_openai,
)
from agentpool.journal import InMemoryJournal, open_journal
from agentpool.live import ApprovalDesk, Board, serve_live
from agentpool.memory import InMemoryMemory, open_sqlite_memory
from agentpool.observe import LoggingObserver, TraceWriter, record_of
from agentpool.testing import (
    EventLog,
    FakeTurn,
    FaultyDriver,
    LatencyDriver,
    lone_context,
    open_quirk_server,
    strict_fake,
)
from agentpool.tools import Cleaner, FileWork, ToolRegistry, open_mcp_servers, tool
from tests.support.fakes import hanging_driver, job, manifest
from tests.test_exports import NAMES

KEY = "sk-very-secret-0123456789"
LONGEST = 200


def public_classes() -> Iterator[type]:
    """Yield each class of the package that has a public name, once."""
    seen = dict[type, None]()
    for module, names in NAMES.items():
        for name in names:
            found: object = getattr(importlib.import_module(module), name)
            if inspect.isclass(found) and found.__module__.startswith("agentpool"):
                seen[found] = None
    for kind in seen:
        if not issubclass(kind, (BaseException, enum.Enum, dict)):
            yield kind


def is_value(kind: type) -> bool:
    """Whether objects of *kind* are compared, and so shown, by their fields."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_config__.frozen and kind.__eq__ is msgspec.Struct.__eq__
    return attrs.has(kind) and kind.__eq__ is not object.__eq__


ODD = {
    "HearsThoughts",  # a protocol: nothing is an object of it
    "PoolMachine",  # Hypothesis shows what it did
}


@pytest.mark.parametrize("kind", list(public_classes()), ids=lambda kind: kind.__name__)
def test_no_public_class_has_the_repr_of_python_or_of_msgspec(kind: type) -> None:
    """The one shows a private module and an address, the other all insides."""
    if kind.__name__ in ODD or is_value(kind):
        return
    assert getattr(kind, "__repr__") is not getattr(object, "__repr__")  # noqa: B009  # for mypy
    if not issubclass(kind, Exception):
        shows = getattr(kind, "__rich_repr__", None)
        assert shows is not None
        assert shows is not getattr(msgspec.Struct, "__rich_repr__", None)


@asynccontextmanager
async def live_objects(folder: Path) -> AsyncGenerator[dict[str, object]]:
    """Open one of each thing with a state that needs no network but loopback."""

    @tool
    def now() -> str:
        """Tell the time."""
        return "noon"

    gate, budget = RequestGate("mine", max_in_flight=4), Budget(tokens=100)
    script = ScriptedDriver(["one", "two"])
    journal = InMemoryJournal()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        pool = await enter(open_pool(hanging_driver(), max_concurrent=2, name="house"))
        stack.callback(pool.abort_all)
        handle = await pool.spawn(job())
        reader = stack.enter_context(pool.events())
        outcomes = await enter(pool.map(manifest(), ["a", "b"]))
        listener = await enter(serve_live(pool))
        ticket = await enter(gate.request(tokens=5))
        yield {
            "pool": pool,
            "router": pool.router,
            "handle": handle,
            "events": reader,
            "stream": handle.stream(),
            "outcomes": outcomes,
            "page": listener,
            "budget": budget,
            "reservation": budget.reserve(tokens=3),
            "gate": gate,
            "ticket": ticket,
            "gates": ProviderGates(),
            "script": script,
            "function": FunctionDriver(lambda _: "x"),
            "lambda of a class": FunctionDriver(_Answers()),
            "gated": GatedDriver(script, gate),
            "fallback": FallbackDriver(script, script),
            "faulty": FaultyDriver([]),
            "latency": LatencyDriver(script),
            "openai": await enter(open_openai("gpt", base_url="http://localhost/v1", api_key=KEY)),
            "anthropic": await enter(
                open_anthropic("claude", base_url="http://localhost/v1", api_key=KEY)
            ),
            "journal": journal,
            "file": await enter(open_journal(folder / "run.db")),
            "session": await enter(open_session(journal, "anna", script)),
            "memory": InMemoryMemory(),
            "notes": await enter(open_sqlite_memory(folder / "notes.db")),
            "tool": now,
            "tools": ToolRegistry([now]),
            "servers": await enter(open_mcp_servers(environ={"KEY": KEY})),
            "quirks": await enter(open_quirk_server()),
            "strict": strict_fake("openai", [FakeTurn(text="x")]),
            "desk": ApprovalDesk(),
            "board": Board(keys=KEY),
            "log": EventLog(),
            "logging": LoggingObserver(),
            "writer": TraceWriter(folder / "run.trace", secrets=[KEY]),
            "record": record_of([]),
            "cleaner": Cleaner(),
            "work": FileWork(),
            "context": lone_context().agent,
            "own driver": _OwnDriver(),
            "own observer": _OwnObserver(),
        }


class _Answers:
    def __call__(self, request: CompletionRequest) -> str:
        return request.system


class _OwnObserver(Observer):
    """Of a user, with a field of a usual name."""

    def on_event(self, event: object) -> None: ...

    def __init__(self) -> None:
        self._state = self.name = KEY


class _OwnDriver(Driver):
    context_window, privacy = 8000, PrivacyTier.SOVEREIGN

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        raise NotImplementedError

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        raise NotImplementedError


async def test_live_objects_are_one_short_line_with_public_words(tmp_path: Path) -> None:
    """By ``repr`` and by ``rich``, and with no key."""
    async with live_objects(tmp_path) as objects:
        for name, thing in objects.items():
            line = repr(thing)
            assert re.fullmatch(rf"<{type(thing).__name__}( .+)?>", line), name
            assert not re.search(r" at 0x|agentpool\.|\b_[a-z]+=", line), name
            assert len(line) < LONGEST + len(str(tmp_path)), name
            assert KEY not in line
            assert pretty_repr(thing, max_width=1_000) == line, name
        assert repr(objects["pool"]) == "<AgentPool 'house' 2/2 running, 1 queued>"
        assert repr(objects["outcomes"]) == "<OutcomeStream 0/2 outcomes taken>"
        assert repr(objects["reservation"]) == "<Reservation of 3 tokens>"
        assert repr(objects["ticket"]) == "<GateTicket of 5 tokens>"
        assert repr(objects["gated"]) == "<GatedDriver of ScriptedDriver at gate 'mine'>"
        assert repr(objects["gates"]) == "<ProviderGates of 0 providers>"
        assert repr(objects["script"]) == "<ScriptedDriver 0 steps taken>"
        assert repr(objects["openai"]) == "<OpenAIDriver 'gpt'>"
        assert repr(objects["tool"]) == "<FunctionTool 'now'>"
        assert repr(objects["own observer"]) == "<_OwnObserver>"


def test_an_attachment_shows_none_of_its_bytes() -> None:
    """A photograph has millions."""
    photograph = Attachment("image/png", b"\x89PNG\r\n\x1a\n" + bytes(40_000))
    assert len(pretty_repr(photograph)) < LONGEST
    assert pretty_repr(photograph) == repr(photograph)


def test_a_class_of_a_user_with_a_form_of_its_own_keeps_it() -> None:
    """Such as that of attrs, or one that was written."""

    @attrs.frozen
    class Counting(Observer):
        count: int = 3

        def on_event(self, event: object) -> None: ...

    class Loud(Observer):
        def on_event(self, event: object) -> None: ...

        def __repr__(self) -> str:
            return "LOUD"

    assert pretty_repr(Counting()) == repr(Counting()).split(".")[-1] == "Counting(count=3)"
    assert pretty_repr(Loud()) == "LOUD"

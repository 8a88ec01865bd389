"""One of each object with a state that users hold, opened without a network but loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

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

KEY = "sk-very-secret-0123456789"
"""A key that is in some of them."""


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

"""A web service around one pool: text as it arrives, conversations, cancel on disconnect.

    python web_service.py --port 8000
    curl -N localhost:8000/ask -d '{"session": "ada", "query": "Who are you?"}'

`POST /ask` answers with server-sent events: `text` for each piece, then `done` or `error`.
`GET /health` says how many agents run and wait. A client that goes away ends its agent, and
who comes when all places are taken is told so (503). Needs hypercorn:
`pip install 'trio-agentpool[mcp]'`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import attrs
import hypercorn
import hypercorn.trio
import trio
from hypercorn.typing import ASGIFramework

from agentpool import (
    AgentHandle,
    AgentManifest,
    AgentPool,
    AgentStatus,
    ChatMessage,
    PoolClosedError,
    PoolFullError,
    PoolPlan,
    SpawnConfig,
    UsageError,
    open_manifest_pool,
)
from agentpool.abc import Driver
from agentpool.observe import AgentFinished, EventReader, TextDelta

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_BODY_BYTES: Final = 64 * 1024
MAX_SESSIONS: Final = 1000
"""The oldest is forgotten then. `outcome_to_json` keeps them in a database instead."""

HOST = AgentManifest.parse(
    """
name = "host"
capabilities = []
[model]
max_tokens = 400
[resources]
max_iterations = 3
run_seconds = 120
"""
)


@attrs.define(eq=False)
class Service:
    """An ASGI application over a pool that is open for as long as it is."""

    pool: AgentPool
    """The pool of all requests."""
    sessions: dict[str, tuple[ChatMessage, ...]] = attrs.field(factory=dict)
    """What was said in each conversation."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
            return
        match scope["method"], scope["path"]:
            case "GET", "/health":
                numbers = {"running": self.pool.active_count, "queued": self.pool.queued_count}
                await reply(send, 200, numbers)
            case "POST", "/ask":
                await self.ask(receive, send)
            case _:
                await reply(send, 404, {"error": "there are GET /health and POST /ask"})

    async def ask(self, receive: Receive, send: Send) -> None:
        """Spawn an agent for what the body asks, and stream its answer."""
        try:
            session, query = read_question(await read_body(receive))
            history = self.sessions.get(session, ())
            # Each session is a group: none takes the slots of all others.
            config = SpawnConfig(HOST, query, history=history, group=session)
        except (ValueError, UsageError) as error:
            await reply(send, 400, {"error": str(error)})
            return
        with self.pool.events() as events:  # from before the agent's start to its end
            try:
                handle = self.pool.spawn_nowait(config)
            except (PoolFullError, PoolClosedError) as error:
                await reply(send, 503, {"error": str(error)})
                return
            await self.stream(session, handle, events, receive, send)

    async def stream(
        self, session: str, handle: AgentHandle, events: EventReader, receive: Receive, send: Send
    ) -> None:
        """Stream the answer of an agent until it ends, or its client goes away."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_when_gone, receive, handle, nursery.cancel_scope)
            await begin_events(send)
            async for event in events:
                if event.agent_id != handle.agent_id:
                    continue
                if isinstance(event, TextDelta):
                    await send_event(send, "text", {"text": event.text})
                elif isinstance(event, AgentFinished):
                    break
            outcome = await handle.wait()
            if outcome.status is AgentStatus.COMPLETED:
                self.remember(session, tuple(outcome.messages))
                await send_event(send, "done", {"text": outcome.text})
            else:
                fault = {"status": outcome.status.value, "error": str(outcome.error)}
                await send_event(send, "error", fault)
            await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()

    def remember(self, session: str, messages: tuple[ChatMessage, ...]) -> None:
        """Keep what was said, and forget the oldest conversation if there are too many."""
        self.sessions.pop(session, None)
        self.sessions[session] = messages
        if len(self.sessions) > MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]


async def end_when_gone(receive: Receive, handle: AgentHandle, scope: trio.CancelScope) -> None:
    """End the agent when its client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    handle.cancel("the client has gone")
    handle.forget()  # nobody will take its outcome
    scope.cancel()


def read_question(body: bytes) -> tuple[str, str]:
    """Return session and query.

    Raises:
        ValueError: If the body is not what it must be.
    """
    match json.loads(body):
        case {"query": str(query), **rest}:
            return str(rest.get("session", "")), query
        case _:
            raise ValueError('the body must be such as {"session": "ada", "query": "Who are you?"}')


async def read_body(receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        ValueError: If it is too large.
    """
    body = bytearray()
    while True:
        part = await receive()
        body += part.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise ValueError(f"the body must be at most {MAX_BODY_BYTES:,} bytes")
        if not part.get("more_body"):
            return bytes(body)


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Say that the service starts and stops: the pool is opened around it."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def reply(send: Send, status: int, value: object) -> None:
    """Answer with JSON."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode() + b"\n"})


async def begin_events(send: Send) -> None:
    """Begin an answer of server-sent events."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_event(send: Send, kind: str, value: object) -> None:
    """Send one event."""
    body = f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": True})


@asynccontextmanager
async def open_service(driver: Driver | None = None) -> AsyncIterator[Service]:
    """Open the pool, and the service over it."""
    plan = PoolPlan(
        manifests=(HOST,), max_concurrent=20, max_queued=100, keep_outcomes=100, driver=driver
    )
    async with open_manifest_pool(plan) as pool:
        yield Service(pool)


async def serve(  # noqa: ASYNC128  # hypercorn calls task_status.started()
    port: int,
    driver: Driver | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Listen on this machine until it is cancelled."""
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    async with open_service(driver) as service:
        app = cast("ASGIFramework", service)
        await hypercorn.trio.serve(app, config, mode="asgi", task_status=task_status)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Serve a pool over HTTP.")
    parser.add_argument("--port", type=int, default=8000)
    trio.run(serve, parser.parse_args(argv).port)
    return 0


if __name__ == "__main__":
    sys.exit(main())

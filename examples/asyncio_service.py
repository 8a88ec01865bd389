"""A web service on asyncio around one pool, which runs on trio in a thread of its own.

    python asyncio_service.py --port 8000
    curl -N localhost:8000/ask -d '{"query": "Who are you?"}'

`PoolThread` is all that is between the two: it opens the pool when the service starts, hands
text on as it arrives, and ends the agent of a client that goes away. The application is one of
Starlette, so FastAPI takes the same `lifespan` and the same `StreamingResponse`. Needs
Starlette and hypercorn: `pip install 'trio-agentpool[mcp]'`.
"""

from __future__ import annotations

import argparse
import asyncio  # noqa: TID251  # it is about programs on asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Any, Final, cast

import hypercorn
import hypercorn.asyncio
import trio
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agentpool import (
    AgentManifest,
    AgentOutcome,
    AgentPool,
    AgentPoolError,
    PoolClosedError,
    PoolPlan,
    SpawnConfig,
    open_manifest_pool,
)
from agentpool.abc import Driver

GRACE_SECONDS: Final = 10
"""What agents have to end their turn when the service stops."""

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


# --- the bridge, which docs/how-to/use-it-beside-asyncio.md shows


class PoolThread:
    """A pool on trio in a thread, for tasks of asyncio."""

    def __init__(
        self, pool: AgentPool, nursery: trio.Nursery, token: trio.lowlevel.TrioToken
    ) -> None:
        """Keep what was opened in the thread."""
        self._pool, self._nursery, self.token = pool, nursery, token

    async def stream(
        self,
        config: SpawnConfig | Callable[[], SpawnConfig],
        on_end: Callable[[AgentOutcome], object] = id,
    ) -> AsyncGenerator[str, None]:
        """Yield the text of one agent as it arrives. Closing this ends the agent.

        Args:
            config: The agent, or a function that makes it in the pool's thread.
            on_end: Called with the outcome, whatever it is, before this ends.

        Raises:
            PoolClosedError: If the pool has closed.
            Exception: What the agent ended with, unless it completed.
        """
        loop = asyncio.get_running_loop()
        items = asyncio.Queue[str | AgentOutcome | Exception]()
        gone = trio.CancelScope()

        def put(item: str | AgentOutcome | Exception) -> None:
            loop.call_soon_threadsafe(items.put_nowait, item)

        try:
            self.token.run_sync_soon(self._begin, config, gone, put)
        except trio.RunFinishedError:
            raise PoolClosedError("the pool has closed") from None
        try:
            while isinstance(item := await items.get(), str):
                yield item
            if isinstance(item, Exception):
                raise item
            on_end(item)
            item.unwrap()
        finally:
            with suppress(trio.RunFinishedError):  # the pool has closed, and so it has ended
                self.token.run_sync_soon(gone.cancel)

    def _begin(
        self,
        config: SpawnConfig | Callable[[], SpawnConfig],
        gone: trio.CancelScope,
        put: Callable[[str | AgentOutcome | Exception], None],
    ) -> None:
        """Start one agent. This runs on trio, as does what follows."""
        try:
            self._nursery.start_soon(self._answer, config, gone, put)
        except RuntimeError:  # the nursery has closed, and the pool is closing
            put(PoolClosedError("the pool has closed"))

    async def _answer(
        self,
        config: SpawnConfig | Callable[[], SpawnConfig],
        gone: trio.CancelScope,
        put: Callable[[str | AgentOutcome | Exception], None],
    ) -> None:
        """Run one agent."""
        end: AgentOutcome | Exception = PoolClosedError("the pool has closed")
        try:
            with gone:
                made = config if isinstance(config, SpawnConfig) else config()
                handle = self._pool.spawn_nowait(made)
                try:
                    with handle.stream() as pieces:
                        async for piece in pieces:
                            put(piece)
                    end = await handle.wait()
                finally:
                    handle.cancel("the client has gone")  # of one that has ended: nothing
                    handle.forget()  # its outcome has been told, or nobody will take it
        except Exception as error:  # noqa: BLE001  # told to the task that asks
            end = error
        finally:
            put(end)


@asynccontextmanager
async def open_pool_thread(
    plan: PoolPlan | Callable[[], AbstractAsyncContextManager[AgentPool]],
) -> AsyncGenerator[PoolThread, None]:
    """Open a pool in a thread of its own, and close it at the end of the block.

    Instead of a plan, a function opens it, with a journal for example. It runs in that thread.

    If this is cancelled while the pool opens, the opening is cancelled, and the thread ends.
    """
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[trio.lowlevel.TrioToken] = loop.create_future()
    opened: asyncio.Future[PoolThread] = loop.create_future()
    scope, stop = trio.CancelScope(), trio.Event()

    async def hold_open() -> None:
        token = trio.lowlevel.current_trio_token()
        loop.call_soon_threadsafe(begun.set_result, token)
        with scope:
            opening = open_manifest_pool(plan) if isinstance(plan, PoolPlan) else plan()
            async with opening as pool, trio.open_nursery() as nursery:
                loop.call_soon_threadsafe(opened.set_result, PoolThread(pool, nursery, token))
                await stop.wait()
                await pool.shutdown(grace_seconds=GRACE_SECONDS)  # and all is told

    def give_up(begun: asyncio.Future[trio.lowlevel.TrioToken]) -> None:
        with suppress(trio.RunFinishedError):  # it could not be opened
            begun.result().run_sync_soon(scope.cancel)

    thread = asyncio.create_task(asyncio.to_thread(trio.run, hold_open))
    both: set[asyncio.Future[Any]] = {thread, opened}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        begun.add_done_callback(give_up)
        await asyncio.gather(thread, return_exceptions=True)  # the thread ends, or has failed
        raise
    if not opened.done():
        thread.result()  # raises why the pool could not be opened
    try:
        yield opened.result()
    finally:
        with suppress(trio.RunFinishedError):  # it ended by itself, and says why below
            opened.result().token.run_sync_soon(stop.set)
        await thread


# --- the service


def make_app(driver: Driver | None = None) -> Starlette:
    """Make the application."""
    plan = PoolPlan(
        manifests=(HOST,), max_concurrent=20, max_queued=100, keep_outcomes=100, driver=driver
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        async with open_pool_thread(plan) as pool:
            app.state.pool = pool
            yield

    return Starlette(routes=[Route("/ask", ask, methods=["POST"])], lifespan=lifespan)


async def ask(request: Request) -> Response:
    """Answer one question, piece by piece."""
    try:
        config = SpawnConfig(HOST, (await request.json())["query"])
    except (ValueError, KeyError, TypeError, AgentPoolError) as error:
        return JSONResponse({"error": f'send {{"query": …}}: {error}'}, status_code=400)
    return StreamingResponse(told(request.app.state.pool, config), media_type="text/plain")


async def told(pool: PoolThread, config: SpawnConfig) -> AsyncIterator[str]:
    """Yield the answer, and at its end what went wrong."""
    async with aclosing(pool.stream(config)) as pieces:
        try:
            async for piece in pieces:
                yield piece
        except Exception as error:  # noqa: BLE001  # whatever the agent ended with
            yield f"\n[{error}]\n"  # noqa: ASYNC119  # closed by its caller


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Serve a pool over HTTP, on asyncio.")
    parser.add_argument("--port", type=int, default=8000)
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{parser.parse_args(argv).port}"]
    asyncio.run(hypercorn.asyncio.serve(cast("ASGIFramework", make_app()), config))
    return 0


if __name__ == "__main__":
    sys.exit(main())

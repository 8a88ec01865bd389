"""Serving the page while a pool runs.

Rules:

1. The pool never waits for the page. The page takes events as any reader does; a browser that does
   not read holds up only the task that writes to it.
2. The view is built when a browser is ready for it, at most once in ``EACH_SECONDS``, and only once
   for all browsers. Without a browser, the view is not built.
3. Serving ends with its block, whatever browsers do.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import secrets
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Final, final

import attrs
import msgspec
import trio

from agentpool._base import Shown, Unique
from agentpool._block_errors import raise_unless_cancelled
from agentpool._checks import expect_arguments
from agentpool._opening import opening
from agentpool._pool.pool import AgentPool
from agentpool._scheduling.owner import as_bystander
from agentpool.live._access import Door, Request
from agentpool.live._actions import Hands
from agentpool.live._approvals import ApprovalDesk
from agentpool.live._http import BadRequestError, Visit
from agentpool.live._listen import listen
from agentpool.live._view import View, shown_call
from agentpool.observe._event_reader import EventReader

_log = logging.getLogger("agentpool")

_FILES: Final = Path(__file__).parent / "_live_page"

_STYLE: Final = Path(__file__).parent.parent / "observe" / "_report_page" / "report.css"

EACH_SECONDS: Final = 0.25
"""The time between two updates of one browser: as fast as eyes follow."""

TOGETHER_SECONDS: Final = 0.02
"""The time during which events are collected, even without a browser."""

STILL_SECONDS: Final = 15.0
"""After this long without news, something is sent anyway, to find out whether the browser is still
there."""

MAX_VISITS: Final = 64
"""The most open connections: a browser needs two for each tab."""

SEND_BYTES: Final = 64 * 1024
"""The most bytes on their way to one browser."""

LAST_SECONDS: Final = 1.0
"""The time for the last update, when the block is left."""


@final
@attrs.define(eq=False, repr=False)
class LivePage(Unique, Shown):
    """The page of one pool."""

    url: str
    """The link, with the token. Whoever has it can end agents."""
    _pool: AgentPool
    _door: Door
    _hands: Hands
    _desk: ApprovalDesk | None
    _seconds: Callable[[], float]
    _view: View = attrs.field(init=False, factory=View)
    _news: trio.Event = attrs.field(init=False, factory=trio.Event)
    _visits: int = attrs.field(init=False, default=0)
    _silent: dict[trio.CancelScope, None] = attrs.field(
        init=False, factory=dict[trio.CancelScope, None]
    )
    """The scopes of connections that have not sent a request yet, oldest first."""
    _looks: int = attrs.field(init=False, default=0)
    """How many browsers are watching."""
    _ended: bool = attrs.field(init=False, default=False)
    _made: tuple[tuple[object, ...], bytes] = attrs.field(init=False, default=((), b""))
    """The state from which the last view was built, and that view."""
    _made_at: float = attrs.field(init=False, default=-math.inf)
    """When the last view was built. All browsers get this view until ``EACH_SECONDS`` have
    passed."""
    _events: EventReader = attrs.field(init=False)
    """The pool's events. Set before the first browser is answered."""

    async def watch(self) -> None:
        """Update the view with new events."""
        # None is taken alone: a browser that looks meanwhile would see those behind it first.
        while await self._events._has_more():  # pyright: ignore[reportPrivateUsage]  # as the hub
            self._catch_up()
            # Those that come now are taken together: to wake up costs more than most events.
            await trio.sleep(TOGETHER_SECONDS)
        await trio.lowlevel.checkpoint()

    def _catch_up(self) -> None:
        if waiting := self._events._take_waiting():  # pyright: ignore[reportPrivateUsage]  # as the hub
            for event in waiting:
                self._view.take(event)
            self.wake()  # also the others, whose news these are

    def wake(self) -> None:
        """Make browsers fetch the changes."""
        if self._looks:
            self._news.set()
            self._news = trio.Event()

    async def visited(self, stream: trio.SocketStream) -> None:
        """Answer one connection."""
        # For a browser that does not read little is put together, and then the newest is sent.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        visit = Visit(stream)
        try:
            async with stream:
                if self._visits >= MAX_VISITS and not self._send_off_a_silent_one():
                    return
                self._visits += 1
                try:
                    await self._answer(visit)
                finally:
                    self._visits -= 1
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()  # the browser has gone
        except Exception:  # noqa: BLE001  # the page may break, and the pool goes on
            _log.error("the live page could not answer", exc_info=True)
            await trio.lowlevel.checkpoint()

    def _send_off_a_silent_one(self) -> bool:
        """Make room by ending the oldest connection that has not asked for anything yet, if any.

        Any program may open many connections, which must not keep the owner from the page.
        """
        scope = next(iter(self._silent), None)
        if scope is None:
            return False
        del self._silent[scope]  # it makes room for one alone
        scope.cancel()
        return True

    async def _request_of(self, visit: Visit) -> Request:
        with trio.CancelScope() as scope:
            self._silent[scope] = None
            try:
                return await visit.read()
            finally:
                self._silent.pop(scope, None)
        raise BadRequestError

    async def _answer(self, visit: Visit) -> None:
        try:
            request = await self._request_of(visit)
        except BadRequestError:
            await visit.answer(400, "text/plain", b"this is not a request")
            return
        refusal = self._door.refusal(request)
        if refusal is not None:
            await visit.answer(refusal[0], "text/plain", refusal[1].encode())
        elif request.target == "/":
            page, policy = _page()
            more = (("Content-Security-Policy", policy),)
            await visit.answer(200, "text/html; charset=utf-8", page, more)
        elif request.target == "/do":
            status, text = self._hands.do(request.body)
            self._view.changes += 1
            self._made_at = -math.inf  # what a person did is seen at once
            self.wake()
            await visit.answer(status, "text/plain; charset=utf-8", text.encode())
        else:
            await self._look(visit)

    async def _look(self, visit: Visit) -> None:
        """Send the view to one browser whenever it changes."""
        await visit.begin(200, "text/event-stream")
        self._looks += 1
        self._made_at = -math.inf  # who comes new sees what is there now
        try:
            while True:
                ended, data = self._ended, self._data()
                await visit.send(data)
                if ended:
                    return
                await trio.sleep(0 if self._ended else EACH_SECONDS)
                if self._made[0] == self._state():
                    with trio.move_on_after(STILL_SECONDS):
                        await self._news.wait()
        finally:
            self._looks -= 1

    def _state(self) -> tuple[object, ...]:
        pending = () if self._desk is None else self._desk.pending
        return self._view.changes, self._ended, tuple(call.number for call in pending)

    def _data(self) -> bytes:
        """Return the current view as an event of the stream."""
        self._catch_up()
        state, (made_of, _) = self._state(), self._made
        is_old = made_of[1:] != state[1:] or self._seconds() - self._made_at >= EACH_SECONDS
        if made_of != state and is_old:
            self._made_at = self._seconds()
            statistics = self._pool.statistics()
            calls = () if self._desk is None else self._desk.pending
            shown = self._view.shown() | {
                "pool": self._pool.name,
                "seconds": self._seconds(),
                "ended_page": self._ended,
                "statistics": statistics,
                "calls": [shown_call(call) for call in calls],
            }
            data = msgspec.json.encode(shown)
            self._made = (state, b"data: " + data + b"\n\n")
        return self._made[1]

    async def end(self) -> None:
        """Send the end to all browsers.

        Cancellation:
            Browsers that have not read the end yet never see it.
        """
        self._ended = True
        while self._looks:
            self.wake()
            await trio.sleep(EACH_SECONDS / 5)
        await trio.lowlevel.checkpoint()

    async def serve(
        self, events: EventReader, sockets: trio.SocketListener, scope: trio.CancelScope
    ) -> None:
        """Answer browsers and keep their view up to date, until *scope* is cancelled."""
        self._events = events
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.watch)
                await trio.serve_listeners(self.visited, [sockets])


@opening("page")
@asynccontextmanager
async def serve_live(
    pool: AgentPool, *, listener: socket.socket | None = None, approvals: ApprovalDesk | None = None
) -> AsyncGenerator[LivePage]:
    """Serve a page on which a person can watch and control *pool*.

    Enter this block right after the block of the pool, since the page shows only what happens from
    then on. The page ends with the block, which should last as long as the agents::

        async with open_pool(driver, approve=desk.ask) as pool:
            async with serve_live(pool, approvals=desk) as page:
                print(page.url)
                ...
                await pool.join_all()

    Args:
        pool: What is shown.
        listener: Where to serve: ``listen(port=8000)``. It is closed at the end. ``None``: any free
            port of this machine.
        approvals: The desk whose calls can be decided on the page. ``None``: no calls can be
            decided there.

    Raises:
        UsageError: If no port can be opened.
    """
    expect_arguments(serve_live, locals())
    bound = trio.socket.from_stdlib_socket(listen() if listener is None else listener)
    host, port, *_ = bound.getsockname()
    name = f"[{host}]" if ":" in host else host
    token = secrets.token_urlsafe(24)
    door = Door(token, frozenset({f"{name}:{port}", f"localhost:{port}"}))
    agents = pool._agents  # pyright: ignore[reportPrivateUsage]  # its clock, and its budget
    hands = Hands(pool, approvals, agents.budget)
    url = f"http://{name}:{port}/#{token}"
    page = LivePage(url, pool, door, hands, approvals, agents.hub.seconds)
    sockets = trio.SocketListener(bound)
    # A cancelled block has an end that browsers see, too. What serves them ends below.
    serving = trio.CancelScope(shield=True)
    failed: BaseException | None = None
    try:
        async with sockets:
            telling = nullcontext() if approvals is None else approvals.tell(page.wake)
            with pool.events() as events, telling:
                async with trio.open_nursery() as nursery:
                    with as_bystander():
                        nursery.start_soon(page.serve, events, sockets, serving)  # noqa: ASYNC113  # what comes before it runs waits for it
                    try:
                        yield page
                    except trio.Cancelled:
                        raise
                    except BaseException as error:  # noqa: BLE001  # raised below, in no group
                        failed = error  # what ends below is cancelled, and would replace it
                    finally:
                        with trio.move_on_after(LAST_SECONDS, shield=True):
                            await page.end()
                        serving.cancel()
    except BaseException as outside:  # noqa: ASYNC103, BLE001  # see there
        raise_unless_cancelled(failed, outside)
    if failed is not None:
        raise failed


@cache
def _page() -> tuple[bytes, str]:
    """Return the page with a policy that forbids it to load anything else."""
    style = _STYLE.read_text(encoding="utf-8") + (_FILES / "live.css").read_text(encoding="utf-8")
    script = (_FILES / "live.js").read_text(encoding="utf-8")
    html = (_FILES / "live.html").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    page = html.replace("/*style*/", style).replace("/*script*/", script)
    return page.encode(), policy


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

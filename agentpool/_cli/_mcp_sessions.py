"""Makes room for new MCP sessions by ending the session that has been idle longest.

Sessions with a call under way are never ended. Sessions with an open stream of events are ended
only if there are no others. If these were never ended, a hundred of them would keep out all other
clients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Generator, MutableMapping
from typing import Any, Final, TypeAlias, final

import attrs

ID: Final = b"mcp-session-id"
"""The header with the name of a session."""

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[None]]


@final
@attrs.define(eq=False)
class _Session:
    calls: int = 0
    """The number of requests under way."""
    streams: int = 0
    """The number of open event streams."""


@final
@attrs.define(eq=False)
class SessionRoom:
    """Wraps the SDK's ASGI application, and ends a session when a new one finds no room."""

    _app: Any
    _most: int
    _hosts: Collection[bytes]
    _origins: Collection[bytes]
    # The one that was used last is the last.
    _sessions: dict[bytes, _Session] = attrs.field(init=False, factory=dict[bytes, _Session])
    # The requests that are to open one.
    _opening: set[int] = attrs.field(init=False, factory=set[int])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = dict(scope.get("headers", ()))
        known = headers.get(ID)
        if known in self._sessions and scope["method"] == "DELETE":
            del self._sessions[known]
            await self._app(scope, receive, send)
        elif known in self._sessions:
            with self._used(known, is_stream=scope["method"] == "GET"):
                await self._app(scope, receive, send)
        elif known is None and self._is_from_here(scope, headers):
            await self._open(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_from_here(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Return whether the SDK may open a session. It may not for a page of another site."""
        return (
            scope.get("method") == "POST"
            and headers.get(b"host") in self._hosts
            and headers.get(b"origin") in {None, *self._origins}
        )

    async def _open(self, scope: Scope, receive: Receive, send: Send) -> None:
        mark = id(scope)

        async def noted(message: Any) -> None:  # noqa: ANN401  # as ASGI has it
            if message["type"] == "http.response.start":
                opened = dict(message["headers"]).get(ID)
                if opened is not None:
                    self._sessions[opened] = _Session()
                    self._opening.discard(mark)
            await send(message)

        self._opening.add(mark)
        try:
            if len(self._sessions) + len(self._opening) > self._most:
                await self._make_room(scope)
            await self._app(scope, receive, noted)
        finally:
            self._opening.discard(mark)

    async def _make_room(self, scope: Scope) -> None:  # noqa: ASYNC910  # a call that waits may find nothing to end
        """End a session that is not in use, or else the least recently used session."""
        quiet = [name for name, one in self._sessions.items() if not one.calls]
        gone = [name for name in quiet if not self._sessions[name].streams]
        for name in (gone or quiet)[:1]:
            del self._sessions[name]
            host = dict(scope["headers"])[b"host"]
            ending = {**scope, "method": "DELETE", "headers": [(b"host", host), (ID, name)]}
            await self._app(ending, _receive_nothing, _send_nowhere)

    @contextlib.contextmanager
    def _used(self, name: bytes, *, is_stream: bool) -> Generator[None]:
        session = self._sessions[name]
        if is_stream:
            session.streams += 1
        else:
            self._sessions[name] = self._sessions.pop(name)
            session.calls += 1
        try:
            yield
        finally:
            if is_stream:
                session.streams -= 1
            else:
                session.calls -= 1


async def _receive_nothing() -> dict[str, object]:  # noqa: ASYNC124  # ASGI has it so
    return {"type": "http.request", "body": b"", "more_body": False}  # noqa: ASYNC910  # ASGI has it so


async def _send_nowhere(_: object) -> None:  # noqa: ASYNC124  # ASGI has it so
    return  # noqa: ASYNC910  # ASGI has it so

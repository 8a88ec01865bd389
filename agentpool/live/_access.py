"""Decides which browser requests are allowed, without the network.

1. The page itself shows nothing secret, so every request to this machine's address gets the page.
2. Only requests with the token of the link are shown what happens in the pool. No browser sends
   this token by itself.
3. A request that changes something must come from this page, as its ``Origin`` header shows.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import final

import attrs


@final
@attrs.frozen
class Request:
    """A request of a browser."""

    method: str
    target: str
    headers: Mapping[str, str]
    """The headers, under their names in lower case."""
    body: bytes = b""


@final
@attrs.frozen
class Door:
    """Checks the token and the names of this page."""

    token: str
    """The secret in the link."""
    places: frozenset[str]
    """The addresses, as ``host:port``, that can only mean this page."""

    def refusal(self, request: Request) -> tuple[int, str] | None:  # noqa: PLR0911  # a rule each
        """Return the status and reason for refusing *request*. ``None``: *request* is allowed."""
        headers = request.headers
        # A foreign name that leads here, so that their page may read ours.
        if headers.get("host", "") not in self.places:
            return 421, "this page has another name"
        if request.target not in {"/", "/events", "/do"}:
            return 404, "there is nothing here"
        if request.method != ("POST" if request.target == "/do" else "GET"):
            return 405, "this is not how to ask here"
        if request.target == "/":
            return None
        origin = headers.get("origin")
        if origin is None and request.method == "POST":
            return 403, "it does not say which page asks; send the page's address as Origin"
        if origin is not None and origin.removeprefix("http://") not in self.places:
            return 403, "another page asks"
        token = headers.get("x-agentpool-token", "")
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            return 403, "the token of the link is missing or wrong"
        return None

"""Converts errors of httpx and of connections into driver errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NoReturn

from agentpool._answer_parser import BadAnswerError
from agentpool._connection import ConnectionLostError
from agentpool._errors import BadRequestError, DriverError, NetworkError, ProtocolError
from agentpool._secrets import redacted
from agentpool.drivers.wire._failure import shown

_FOREIGN: Final = frozenset({"httpx", "httpcore"})

# By name, because httpx and httpcore have the same ones; from the special to the general
# by the order of a class's bases. A text stands where the error's own may show a secret.
_MEANINGS: Final[Mapping[str, tuple[type[DriverError], str]]] = {
    "LocalProtocolError": (BadRequestError, "the request cannot be sent as HTTP"),
    "UnsupportedProtocol": (BadRequestError, "only http and https can be used"),
    "TooManyRedirects": (BadRequestError, ""),
    "InvalidURL": (BadRequestError, "the URL cannot be used"),
    "CookieConflict": (BadRequestError, ""),
    "ProxyError": (NetworkError, ""),
    "RemoteProtocolError": (ProtocolError, ""),
    "ProtocolError": (ProtocolError, ""),
    "DecodingError": (ProtocolError, ""),
    "StreamError": (ProtocolError, ""),
    "HTTPStatusError": (ProtocolError, ""),
    "TimeoutException": (NetworkError, ""),
    "NetworkError": (NetworkError, ""),
    "ConnectionNotAvailable": (NetworkError, ""),
    "HTTPError": (NetworkError, ""),
}


def raise_as_driver_error(exc: Exception, secrets: Collection[str] = ()) -> NoReturn:
    """Raise the driver error that corresponds to *exc*, with *secrets* redacted.

    Raises:
        DriverError: The driver error.
        Exception: *exc* itself, if its kind is unknown.
    """
    if isinstance(exc, ConnectionLostError):
        raise NetworkError(str(exc)) from exc
    if isinstance(exc, BadAnswerError):
        msg = f"the answer is refused: {shown(redacted(str(exc), secrets))}"
        raise ProtocolError(msg) from None
    for base in type(exc).__mro__:
        if base.__name__ in _MEANINGS and base.__module__.partition(".")[0] in _FOREIGN:
            kind, text = _MEANINGS[base.__name__]
            break
    else:
        raise exc
    if text:
        # Without its cause: h11, below httpx, quotes the header that it refuses.
        raise kind(text) from None
    said = shown(redacted(str(exc), secrets)) or "no explanation"
    if kind is ProtocolError and ("disconnect" in said or "closed" in said):
        kind = NetworkError
    is_quoted = redacted(chain := _chain_of(exc), secrets) != chain
    raise kind(f"{type(exc).__name__}: {said}") from None if is_quoted else exc


def _chain_of(exc: BaseException | None) -> str:
    """Return all text that a traceback of *exc* would show."""
    texts: list[str] = []
    while exc is not None:
        texts += [str(exc), repr(exc)]
        exc = exc.__cause__ or exc.__context__
    return "\n".join(texts)

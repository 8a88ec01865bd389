"""A tool that requests pages from allowed web servers.

Rules:

1. Every hop is checked again: its URL, and every address of its host. If one address is forbidden,
   no connection is made.
2. The connection is made to an address that was checked, and the connected address is checked
   again. The name server is not asked a second time, so it cannot give a different answer.
3. Only what the model asked for is sent: no cookies and no secrets. The proxy of the environment is
   not used. The one exception is the call's own key, which is sent if the pool has a journal and
   the request changes something. After a redirect to a different host, the model's headers are not
   sent.
4. Answers are limited in length, and never cut inside a character. An answer that is not text is
   described. A server may use the character sets of the web, but not all of Python's codecs: some
   of these decompress data, take quadratic time, or are not for text at all.
"""

from __future__ import annotations

import codecs
import ipaddress
import json
import ssl
from collections.abc import Collection, Mapping
from typing import Annotated, Final, Literal, TypeAlias, final

import attrs
import trio
from msgspec import Meta

from agentpool._answer_parser import AnswerHead, BadAnswerError
from agentpool._checks import expect_arguments
from agentpool._connection import Connection, ConnectionLostError, RequestHead, Target
from agentpool._errors import ToolError
from agentpool._manifest.capability import Capability
from agentpool._manifest.hosts import Address, HostRules, HttpUrl, address_of
from agentpool._one_line import one_line
from agentpool.abc import Tool, ToolContext
from agentpool.tools._function import tool
from agentpool.tools._idempotency_key import key_for_others

Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

TOOL_SECONDS: Final = 30.0
"""The time for one call, redirects included; a page that takes longer is not worth the wait."""

CONNECT_SECONDS: Final = 10.0
"""The time for one address. After that, the next address of the same host is tried."""

CHARSETS: Final = frozenset(
    (
        "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "ascii",
        *(f"iso8859-{number}" for number in (*range(1, 12), *range(13, 17))),
        *(f"cp{number}" for number in (866, 874, 932, 949, *range(1250, 1259))),
        "mac-roman", "koi8-r", "koi8-u", "shift_jis", "euc_jp", "euc_kr",
        "tis-620", "gb2312", "gbk", "gb18030", "big5",
    )
)  # fmt: skip
"""The character sets that a server may use: each takes time in proportion to the text."""

MAX_SHOWN_TYPE_CHARS: Final = 200
"""The most characters shown of a content type. Real ones are shorter."""

# Python remembers every name that it was ever asked for.
_MAX_CHARSET_CHARS: Final = 20

MAX_REDIRECTS: Final = 5

MAX_REQUEST_BYTES: Final = 256 * 1024

MAX_READ_BYTES: Final = 256 * 1024
"""The most bytes read of a body. The rest is not read, since a server may send without end."""

MAX_SHOWN_CHARS: Final = 16_000
"""About 4,000 tokens."""

MAX_HEADERS: Final = 20

SAFE_HEADERS: Final = frozenset(
    {"accept", "accept-language", "content-type", "if-match", "if-modified-since",
     "if-none-match", "if-unmodified-since", "range", "user-agent"}
)  # fmt: skip
"""Headers that a model may always set. ``Host`` is not among them, since it could name a server
that was not checked. ``Authorization`` and ``Cookie`` could act for the user, and
``Content-Length`` could lie about the body."""

NEVER_HEADERS: Final = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "accept-encoding", "upgrade",
     "trailer", "expect", "keep-alive", "proxy-connection"}
)  # fmt: skip
"""Headers that can never be allowed, since the request sets them."""

_OF_A_DEED: Final = frozenset({"content-type", "idempotency-key"})
"""Headers that have no use in a request that only reads."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEEP_METHOD: Final = frozenset({307, 308})
_TEXT_TYPES: Final = ("text/", "application/json", "application/xml", "application/javascript")
_TEXT_ENDS: Final = ("+json", "+xml")


def http_tools(
    *hosts: str, also_headers: Collection[str] = (), tls: ssl.SSLContext | None = None
) -> tuple[Tool, ...]:
    """Return the tool ``http_request``, which may connect to *hosts* only.

    Args:
        hosts: The allowed hosts: names, addresses and networks, ``.name`` for all names below
            ``name``, and ``*`` for every public host. Each has a port if that is not 80 or 443.
            Addresses that are not public must be listed explicitly.
        also_headers: Headers that a model may send in addition to the harmless ones, for example
            ``authorization``.
        tls: The certificates to trust. ``None``: those of the system.
    """
    expect_arguments(http_tools, locals())
    allowed = SAFE_HEADERS | {name.lower() for name in also_headers}
    web = _Web(HostRules(hosts), allowed - NEVER_HEADERS, tls)
    grant = Capability.network(*hosts)
    return (tool(capability=grant, timeout_seconds=TOOL_SECONDS)(web.http_request),)


@final
@attrs.define(eq=False, repr=False)
class _Web:
    _rules: HostRules
    _allowed_headers: frozenset[str]
    _tls: ssl.SSLContext | None

    async def http_request(
        self,
        context: ToolContext,
        url: str,
        method: Method = "GET",
        headers: dict[str, str] | None = None,
        body: Annotated[str, Meta(max_length=MAX_REQUEST_BYTES)] = "",
    ) -> str:
        """Ask a web server and read its answer.

        Args:
            context: The call.
            url: The full address, http:// or https://.
            method: What to do with it.
            headers: Extra headers, such as accept or content-type.
            body: The text to send with POST, PUT or PATCH.
        """
        here = HttpUrl.parse(url)
        data = body.encode("utf-8", "replace")
        fields = self._checked(headers or {}, data)
        key = key_for_others(context)
        if key and method not in {"GET", "HEAD"}:
            fields["idempotency-key"] = key  # whatever a model may say
        for _ in range(MAX_REDIRECTS + 1):
            self._rules.check_url(here)
            head, payload, is_whole = await self._ask(here, method, fields, data)
            location = _header(head, b"location")
            if head.status not in _REDIRECTS or not location:
                return _shown(here, url, head, payload, is_whole)
            there = here.join(location)
            if here.scheme == "https" and there.scheme == "http":
                raise ToolError(f"{here} redirects to http, which is not encrypted")
            if head.status not in _KEEP_METHOD and method not in {"GET", "HEAD"}:
                method, data = "GET", b""
                fields = {k: v for k, v in fields.items() if k not in _OF_A_DEED}
            if there.authority != here.authority:
                fields = {k: v for k, v in fields.items() if k in SAFE_HEADERS}
            here = there
        raise ToolError(f"more than {MAX_REDIRECTS} redirects; the last one led to {here}")

    def _checked(self, headers: Mapping[str, str], data: bytes) -> dict[str, str]:
        if len(headers) > MAX_HEADERS:
            raise ToolError(f"at most {MAX_HEADERS} headers can be sent, got {len(headers)}")
        fields: dict[str, str] = {"user-agent": "agentpool", "accept": "*/*"}
        if data:
            fields["content-type"] = "text/plain; charset=utf-8"
        for name, value in headers.items():
            if name.lower() not in self._allowed_headers:
                allowed = ", ".join(sorted(self._allowed_headers))
                raise ToolError(
                    f"the header {name!r} may not be sent; leave it out; allowed are: {allowed}"
                )
            if not (value.isascii() and value.isprintable() and value == value.strip()):
                raise ToolError(
                    f"the value of header {name!r} is not printable ASCII; write it with other "
                    "characters, or leave it out"
                )
            fields[name.lower()] = value
        return fields

    async def _ask(
        self, url: HttpUrl, method: str, fields: Mapping[str, str], data: bytes
    ) -> tuple[AnswerHead, bytes, bool]:
        """Send one request; return the head, the body, and whether the body is complete."""
        own = {"host": url.authority, "accept-encoding": "identity", "connection": "close"}
        headers = [(name.encode(), value.encode()) for name, value in {**own, **fields}.items()]
        request = RequestHead.build(method, url.target.encode(), headers, says_length=True)
        connection = await self._connect(url)
        try:
            head = await connection.send(request, data)
            encoding = _header(head, b"content-encoding") or "identity"
            if encoding.lower() != "identity":
                # It was not asked for, and may unpack to any size.
                shown = one_line(encoding, MAX_SHOWN_TYPE_CHARS)
                raise ToolError(
                    f"the answer is encoded as '{shown}', which was not requested, so it is not "
                    "read; use another page"
                )
            payload = bytearray()
            while piece := await connection.receive():
                payload += piece
                if len(payload) > MAX_READ_BYTES:
                    return head, bytes(payload[:MAX_READ_BYTES]), False
            return head, bytes(payload), True
        except ConnectionLostError as exc:
            raise ToolError(
                f"the connection to {url.authority} broke: {exc}; try again later"
            ) from exc
        except BadAnswerError as exc:
            raise ToolError(
                f"the answer of {url.authority} is refused: {exc}; check the address and the port"
            ) from exc
        finally:
            connection.close()

    async def _connect(self, url: HttpUrl) -> Connection:
        is_tls = url.scheme == "https"
        if is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
        target = Target(is_tls, url.host, url.port)
        failures: list[str] = []
        for address in await self._resolve(url):
            with trio.move_on_after(CONNECT_SECONDS):  # noqa: ASYNC912  # connecting has a checkpoint, and trio sees none in a loop
                try:
                    connection = await Connection.open(target, self._tls, address=str(address))
                except (OSError, trio.BrokenResourceError) as exc:
                    failures.append(f"{address}: {exc.__cause__ or exc}")
                    continue
                try:
                    self._rules.check_address(url, ipaddress.ip_address(connection.peer))
                except BaseException:
                    connection.close()
                    raise
                return connection
            # Everything but the clock has returned, raised or gone on.
            failures.append(f"{address}: no connection in {CONNECT_SECONDS:g} seconds")
        raise ToolError(f"cannot connect to {url.authority}: {'; '.join(failures)}")

    async def _resolve(self, url: HttpUrl) -> list[Address]:
        """Return the addresses of the host, all of them checked."""
        literal = address_of(url.host)
        if literal is not None:
            await trio.lowlevel.checkpoint()
            self._rules.check_address(url, literal)
            return [literal]
        try:
            found = await trio.socket.getaddrinfo(url.host, url.port, type=trio.socket.SOCK_STREAM)
        except OSError as exc:
            raise ToolError(
                f"the host {url.host!r} cannot be found: {exc}; check its name"
            ) from exc
        addresses = [
            ipaddress.ip_address(str(place[0]).partition("%")[0]) for _, _, _, _, place in found
        ]
        for address in addresses:
            self._rules.check_address(url, address)
        return list(dict.fromkeys(addresses))


def _header(head: AnswerHead, name: bytes) -> str:
    return next((v.decode("latin-1") for k, v in head.headers if k.lower() == name), "")


def _shown(
    here: HttpUrl,
    asked: str,
    head: AnswerHead,
    payload: bytes,
    is_whole: bool,  # noqa: FBT001
) -> str:
    kind = _header(head, b"content-type")
    lines = [f"HTTP {head.status}"]
    if str(here) != asked:
        lines.append(f"from {here}")
    if kind:
        lines.append(f"content-type: {one_line(kind, MAX_SHOWN_TYPE_CHARS)}")
    return "\n".join((*lines, "", _text_of(kind, payload, is_whole)))


def _text_of(kind: str, payload: bytes, is_whole: bool) -> str:  # noqa: FBT001
    media, _, rest = kind.partition(";")
    media = media.strip().lower()
    is_text = media.startswith(_TEXT_TYPES) or media.endswith(_TEXT_ENDS)
    charset = "utf-8"
    for word in rest.split(";"):
        name, _, value = word.strip().partition("=")
        if name.lower() == "charset":
            charset = value.strip("\"' ")
    more = "" if is_whole else " or more"
    try:
        decoder = codecs.getincrementaldecoder(_codec(charset))("replace" if is_text else "strict")
        # Not final where the body was cut: the end of it may be a part of a character.
        text = decoder.decode(payload, is_whole)
    except UnicodeError:  # strict, or UTF-16 without the mark at its beginning
        text = payload.decode("utf-8", "replace") if is_text else "\0"
    if "\0" in text or (media and not is_text):
        name = json.dumps(one_line(media, MAX_SHOWN_TYPE_CHARS) or "unknown")
        return f"[no text: {len(payload)} bytes{more} of {name}, not shown]"
    if len(text) > MAX_SHOWN_CHARS or not is_whole:
        left = max(len(text) - MAX_SHOWN_CHARS, 0)
        return f"{text[:MAX_SHOWN_CHARS]}\n[cut: {left}{more} more characters]"
    return text


def _codec(charset: str) -> str:
    """Return Python's name of *charset*, or of UTF-8 if *charset* is not supported."""
    try:
        # By its own name: there are many ways to write each of them.
        name = codecs.lookup(charset[:_MAX_CHARSET_CHARS]).name
    except (LookupError, UnicodeError, ValueError):  # ValueError: a NUL
        return "utf-8"
    return name if name in CHARSETS else "utf-8"

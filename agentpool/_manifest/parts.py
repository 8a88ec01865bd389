"""Limits and MCP servers of a manifest. An invalid part cannot be created.

Rules, also for ``model``. They are checked once, when a value is made:

1. Counts are integers above zero, and ``True`` does not count as 1. Money and seconds are finite.
2. ``None`` means no limit, except for cost, where 0 means no limit (as in existing manifests).
3. A setting that would be ignored is refused: a quantization without a repository, an address
   without a remote model, a URL for a server that is started by a command.
4. An address is judged by its parsed host, never by the beginning of its text.
5. A fault never quotes what may be a secret: keys, and URLs with a password.

All faults of a part are raised together, with paths inside the part.
"""

from __future__ import annotations

import enum
import ipaddress
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias, assert_never, cast, final
from urllib.parse import SplitResult

import attrs

from agentpool._base import Value
from agentpool._checks import expect_fields, plain_fields
from agentpool._errors import Fault, ManifestError
from agentpool._manifest.urls import split_url
from agentpool._numbers import is_number, is_whole

OnUnknown: TypeAlias = Literal["report", "rerun", "ask", "stop"]
"""How to treat a tool call that may or may not have been done."""

DEFAULT_NAME: Final = "unnamed-agent"
"""The name of an agent whose manifest gives none."""

DEFAULT_VERSION: Final = "0.1.0"
"""The version of a manifest that gives none."""

SHOWN_CHARACTERS: Final = 60
"""The most characters of a value that a fault quotes, so that they fit on a line."""

FIRST_PRINTABLE: Final = 0x20
"""The first character that is not a control character: the space."""


def shown(value: object) -> str:
    """Return *value* as faults show it: in TOML, shortened.

    >>> shown(True), shown("a"), shown({})
    ('true', "'a'", 'a table')
    """
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "a table"
        case list():
            return "an array"
        case str() if len(value) > SHOWN_CHARACTERS:
            return repr(value[:SHOWN_CHARACTERS] + "…")
        # repr() refuses to write an integer of more than 4,300 digits.
        case int() if value.bit_length() > SHOWN_CHARACTERS * 3:
            return "a number of more than 50 digits"
        case _:
            return repr(value)


def raise_if_any(faults: Sequence[Fault], source: str) -> None:
    """Raise one error with all *faults*, if there are any.

    Raises:
        ManifestError: If there are any.
    """
    if faults:
        raise ManifestError(tuple(faults), source=source)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ResourceQuota(Value):
    """The limits of one run."""

    max_iterations: int = 20
    """Model requests of the agent and its children. Retries of the agent itself do not count,
    unless it had children."""
    max_tool_calls: int = 50
    """Tool calls that the model asks for, refused ones included, and those of its children."""
    max_cost_usd: float = 0.0
    """US dollars. 0 means no limit."""
    max_tokens_budget: int | None = None
    """Tokens in plus tokens out, over all requests. ``None``: no limit."""
    max_repeated_calls: int = 3
    """The count at which the same call with the same result is refused: 3 lets it run twice.
    Calls with changing results, and tools that wait for others, may go on."""
    run_seconds: float | None = None
    """The limit from the first slot to the end. ``None``: no limit."""
    request_seconds: float | None = None
    """The limit for one model request with its retries, without waits for its turn. ``None``: no
    limit."""
    tool_seconds: float | None = 120.0
    """The limit for one tool call, unless the tool sets a different one. ``None``: no limit."""
    approval_seconds: float | None = 3600.0
    """The limit for an approval; after it, the call is refused. ``None``: no limit."""

    def __attrs_post_init__(self) -> None:
        """Refuse limits that are not positive numbers."""
        raise_if_any([*_quota_faults(self)], "ResourceQuota")
        plain_fields(self)


class McpTransport(enum.Enum):
    """How to reach an MCP server."""

    STDIO = "stdio"
    """A child process that reads and writes lines."""
    HTTP = "http"
    """Streamable HTTP."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class McpServerConfig(Value):
    """An MCP server with tools for the agent."""

    name: str
    """The prefix of its tools' names: letters, digits, ``_`` and ``-``."""
    transport: McpTransport
    """How it is reached."""
    command: tuple[str, ...] = ()
    """The program and its arguments. Empty for ``http``."""
    url: str | None = None
    """Its address. ``None`` for ``stdio``."""
    capabilities: tuple[str, ...] = ()
    """The permitted tools; ``*`` means all of them, empty means none."""
    env: tuple[str, ...] = ()
    """The environment variables that the program gets in addition to the harmless ones."""
    api_key_env: str | None = None
    """The variable with the token that an ``http`` server asks for. ``None``: it asks for no
    token."""
    private_host: bool = False
    """Whether the place at ``url`` is your own. A `PRIVATE` agent uses only such servers and this
    machine."""
    on_unknown: OnUnknown = "report"
    """How to treat a call that had begun when a journal is resumed: see `Tool`."""

    def __attrs_post_init__(self) -> None:
        """Refuse settings that do not fit the transport."""
        expect_fields(self)
        raise_if_any([*_server_faults(self)], "McpServerConfig")


def is_loopback_url(url: str) -> bool:
    """Return whether *url* leads to this machine, in whatever form it is written.

    >>> is_loopback_url("http://127.0.0.1:8080/v1")
    True
    >>> is_loopback_url("http://127.0.0.1@evil.example/")
    False
    """
    parts = _http_parts(url)
    if parts is None or "@" in parts.netloc:
        return False
    host = parts.hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_INPUTS: Final = ("text", "image", "pdf")
"""The inputs that a manifest may name. Every model also reads text."""


def inputs_faults(inputs: object) -> Iterator[Fault]:
    """Yield the faults of *inputs*, what a model reads besides text. ``None``: no faults."""
    if inputs is None:
        return
    words = ", ".join(map(repr, _INPUTS))
    if not isinstance(inputs, tuple):
        yield Fault("inputs", f"must be a tuple of {words}, got {shown(inputs)}")
        return
    for one in cast("tuple[object, ...]", inputs):
        if one not in _INPUTS:
            yield Fault("inputs", f"must be of {words}, got {shown(one)}")


def count_faults(path: str, value: object, *, above: int = 0) -> Iterator[Fault]:
    """Yield a fault unless *value* is an integer above *above*."""
    if not is_whole(value):
        yield Fault(path, f"must be an integer, got {shown(value)}")
    elif value <= above:
        yield Fault(path, f"must be > {above}, got {shown(value)}")


def text_faults(path: str, texts: Iterable[str]) -> Iterator[Fault]:
    """Yield a fault for each text that is empty or occurs twice."""
    seen: set[str] = set()
    for text in texts:
        if not text.strip():
            yield Fault(path, f"must not contain an empty text, got {text!r}")
        elif text in seen:
            yield Fault(path, f"must not contain {text!r} twice")
        seen.add(text)


def control_trouble(path: str) -> str:
    r"""Return why a *path* with a control character is refused; empty if it has none.

    In double quotes TOML reads ``C:\new`` as ``C:``, a line break, and ``ew``.
    """
    if any(ord(sign) < FIRST_PRINTABLE for sign in path):
        return (
            f"must not have a control character, got {path!r}; write a path with backslashes in "
            "single quotes: 'C:\\new\\notes'"
        )
    return ""


def seconds_faults(path: str, seconds: float) -> Iterator[Fault]:
    """Yield a fault unless *seconds* is a positive, finite time."""
    if not (is_number(seconds) and 0 < seconds < math.inf):
        yield Fault(path, f"must be a finite number > 0, got {shown(seconds)}")


def variable_faults(path: str, names: Iterable[str]) -> Iterator[Fault]:
    """Yield a fault for each name that no environment variable can have."""
    if not all(name.isascii() and name.isidentifier() for name in names):
        # Not quoted: who gets this wrong has often written the key itself.
        yield Fault(path, "must be the name of an environment variable, not the key itself")


def _quota_faults(quota: ResourceQuota) -> Iterator[Fault]:
    yield from count_faults("max_iterations", quota.max_iterations)
    yield from count_faults("max_tool_calls", quota.max_tool_calls)
    cost = quota.max_cost_usd
    if not (is_number(cost) and 0 <= cost < math.inf):
        text = f"must be a finite number >= 0, got {shown(cost)}; 0 means no limit"
        yield Fault("max_cost_usd", text)
    if quota.max_tokens_budget is not None:
        yield from count_faults("max_tokens_budget", quota.max_tokens_budget)
    # Above 1: a limit of 1 would refuse every call that there is.
    yield from count_faults("max_repeated_calls", quota.max_repeated_calls, above=1)
    limits = (
        ("run_seconds", quota.run_seconds),
        ("request_seconds", quota.request_seconds),
        ("tool_seconds", quota.tool_seconds),
        ("approval_seconds", quota.approval_seconds),
    )
    for name, seconds in limits:
        if seconds is not None:
            yield from seconds_faults(name, seconds)


def _server_faults(server: McpServerConfig) -> Iterator[Fault]:
    name = server.name
    if not name.strip():
        yield Fault("name", "MCP server name must not be empty")
    elif not (name.isascii() and name.replace("_", "a").replace("-", "a").isalnum()):
        # Tool names are made from it, and providers accept no others.
        yield Fault("name", f"must be letters, digits, '_' and '-', got {name!r}")
    match server.transport:
        case McpTransport.STDIO:
            if not (server.command and server.command[0].strip()):
                text = f"MCP server {name!r} uses stdio transport but has no command"
                yield Fault("command", text)
            yield from _unused_faults(server, "stdio", ("url", "api_key_env", "private_host"))
        case McpTransport.HTTP:
            if server.url is None:
                text = f"MCP server {name!r} uses http transport but has no url"
                yield Fault("url", text)
            else:
                yield from url_faults("url", server.url)
            yield from _unused_faults(server, "http", ("command", "env"))
        case _:
            assert_never(server.transport)
    yield from text_faults("capabilities", server.capabilities)
    yield from text_faults("env", server.env)
    yield from variable_faults("env", (name for name in server.env if name.strip()))
    if server.api_key_env is not None:
        yield from variable_faults("api_key_env", (server.api_key_env,))


def _unused_faults(server: McpServerConfig, used: str, names: Iterable[str]) -> Iterator[Fault]:
    other = "http" if used == "stdio" else "stdio"
    for name in names:
        if getattr(server, name):
            yield Fault(name, f"means nothing with {used} transport; use {other}")


def url_faults(path: str, url: str) -> Iterator[Fault]:
    """Yield a fault unless *url* can be read in exactly one way."""
    parts = _http_parts(url)
    if "@" in (parts.netloc if parts else url):
        yield Fault(path, "must not carry a user name or password")
    elif parts is None:
        text = f"must be a URL such as 'http://127.0.0.1:8080/v1', got {shown(url)}"
        yield Fault(path, text)


def _http_parts(url: str) -> SplitResult | None:
    """Return the parts of an http or https URL. ``None``: *url* is not one."""
    parts = split_url(url)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        return None
    return parts

"""The parts of a manifest: model, limits, MCP servers. Each part refuses to be wrong.

Rules, checked when the value is made, so that nobody checks again:

1. Counts are integers above zero; ``True`` is not one. Money and seconds are finite.
2. No limit is ``None``, except for cost, where it is 0 (as in manifests that exist).
3. What would be ignored is refused: a quantization without a repository, an address
   without a remote model, a URL for a server that is started by a command.
4. An address is judged by its parsed host, never by how its text begins.
5. A fault never quotes what may be a secret: keys, and URLs with a password.

All faults of a part are raised at once, with paths inside the part.
"""

from __future__ import annotations

import enum
import ipaddress
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal, TypeAlias, assert_never, final
from urllib.parse import SplitResult, urlsplit

import attrs

from agentpool._errors import Fault, ManifestError
from agentpool._manifest_toml import shown

Provider: TypeAlias = Literal["openai", "anthropic"]
"""The wire formats that a remote model may speak."""

PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": "openai",
    "anthropic": "anthropic",
}
"""The providers by their word in a manifest."""

MAX_TEMPERATURE: Final = 2.0
"""The upper end at OpenAI; Anthropic refuses more than 1.0 by itself."""


def _raise_if_any(faults: Iterable[Fault], source: str) -> None:
    found = tuple(faults)
    if found:
        raise ManifestError(found, source=source)


@final
@attrs.frozen(kw_only=True)
class ModelConfig:
    """Which model answers, and how it is asked."""

    model_path: str | None = None
    """A GGUF file on this machine. ``None``: the packaged one, or ``model_repo``."""
    model_repo: str | None = None
    """A repository of GGUF files, such as ``owner/name``. ``None``: none."""
    model_quantization: str | None = None
    """Which file of ``model_repo``, such as ``q4_k_m``. ``None``: the usual one."""
    remote_model: str | None = None
    """The provider's name of a model behind an API. ``None``: a local model."""
    provider: Provider = "openai"
    """The wire format of ``remote_model``."""
    base_url: str | None = None
    """Where ``remote_model`` is served. ``None``: at the provider itself."""
    private_host: bool = False
    """Whether the place at ``base_url`` is your own: `PRIVATE` instead of `STANDARD`."""
    api_key_env: str | None = None
    """The environment variable with the key. ``None``: the provider's usual one."""
    max_tokens: int = 1024
    """The most tokens of one answer. Less than the window: the question needs room."""
    temperature: float = 0.3
    """0.0 is the likeliest word each time; 2.0 is the upper end."""
    system_prompt: str = "You are a helpful assistant."
    """What the model is told before everything else. Empty: nothing."""
    context_window: int | None = None
    """Tokens of request and answer together. ``None``: as the driver says."""
    fallback: ModelConfig | None = None
    """Which model answers when this one fails. ``None``: none. How it is asked is the same."""

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning."""
        _raise_if_any(_model_faults(self), "ModelConfig")


@final
@attrs.frozen(kw_only=True)
class ResourceQuota:
    """What one run may use."""

    max_iterations: int = 20
    """Model requests, retries not counted."""
    max_tool_calls: int = 50
    """Tool calls that the model asks for, refused ones included."""
    max_cost_usd: float = 0.0
    """US dollars. 0 means no limit."""
    max_tokens_budget: int | None = None
    """Tokens in plus tokens out, over all requests. ``None``: no limit."""
    max_repeated_calls: int = 3
    """The same call is refused from this time on: 3 lets it run twice."""
    run_seconds: float | None = None
    """From the first slot to the end. ``None``: no limit."""
    request_seconds: float | None = None
    """For one model request, retries included. ``None``: no limit."""
    tool_seconds: float | None = 120.0
    """For one tool call whose tool does not say otherwise. ``None``: no limit."""

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning."""
        _raise_if_any(_quota_faults(self), "ResourceQuota")


class McpTransport(enum.Enum):
    """How an MCP server is reached."""

    STDIO = "stdio"
    """A child process that reads and writes lines."""
    HTTP = "http"
    """Streamable HTTP."""


@final
@attrs.frozen(kw_only=True)
class McpServerConfig:
    """An MCP server whose tools the agent may call."""

    name: str
    """What its tools are named after: letters, digits, ``_`` and ``-``."""
    transport: McpTransport
    """How it is reached."""
    command: tuple[str, ...] = ()
    """The program and its arguments. Empty for ``http``."""
    url: str | None = None
    """Its address. ``None`` for ``stdio``."""
    capabilities: tuple[str, ...] = ()
    """The tools that may be called; ``*`` is all of them, empty is none."""

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning."""
        _raise_if_any(_server_faults(self), "McpServerConfig")


def is_loopback_url(url: str) -> bool:
    """Whether *url* leads to this machine, whatever it looks like.

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


def count_faults(path: str, value: object, *, above: int = 0) -> Iterator[Fault]:
    """Yield a fault unless *value* is an integer above *above*."""
    if not isinstance(value, int) or isinstance(value, bool):
        yield Fault(path, f"must be an integer, got {shown(value)}")
    elif value <= above:
        yield Fault(path, f"must be > {above}, got {shown(value)}")


def text_faults(path: str, texts: Iterable[str]) -> Iterator[Fault]:
    """Yield a fault for each of *texts* that is empty or stands there twice."""
    seen: set[str] = set()
    for text in texts:
        if not text.strip():
            yield Fault(path, f"must not contain an empty text, got {text!r}")
        elif text in seen:
            yield Fault(path, f"must not contain {text!r} twice")
        seen.add(text)


def _model_faults(model: ModelConfig) -> Iterator[Fault]:
    local, remote = model.model_path or model.model_repo, model.remote_model
    names = ("model_path", "model_repo", "model_quantization", "remote_model")
    for name in names:
        value: str | None = getattr(model, name)
        if value is not None and not value.strip():
            yield Fault(name, f"must not be empty, got {value!r}; leave it out")
    if model.model_path is not None and model.model_repo is not None:
        yield Fault("model_repo", "model_repo and model_path are mutually exclusive")
    if remote is not None and local is not None:
        text = "cannot stand beside model_path or model_repo; keep one of them"
        yield Fault("remote_model", text)
    if model.model_quantization is not None and model.model_repo is None:
        yield Fault("model_quantization", "means nothing without model_repo")
    yield from _remote_faults(model)
    if model.fallback is not None and model.fallback.fallback is not None:
        yield Fault("fallback.fallback", "is one too many; a model has one fallback")
    yield from count_faults("max_tokens", model.max_tokens)
    if not (_is_number(model.temperature) and 0 <= model.temperature <= MAX_TEMPERATURE):
        text = f"must be in [0.0, {MAX_TEMPERATURE}], got {shown(model.temperature)}"
        yield Fault("temperature", text)
    window = model.context_window
    if window is not None:
        wrong = tuple(count_faults("context_window", window))
        yield from wrong
        if not wrong and _is_number(model.max_tokens) and window <= model.max_tokens:
            # The answer's room is taken from the window: nothing would be left of it
            # for the question.
            text = f"must be less than context_window ({window}), got "
            text += f"{model.max_tokens}; the question needs room as well"
            yield Fault("max_tokens", text)


def _remote_faults(model: ModelConfig) -> Iterator[Fault]:
    if model.provider not in PROVIDERS:
        words = ", ".join(repr(word) for word in PROVIDERS)
        yield Fault("provider", f"must be one of {words}, got {model.provider!r}")
    if model.remote_model is None:
        unused = "means nothing without remote_model"
        if model.provider == "anthropic":
            yield Fault("provider", unused)
        if model.base_url is not None:
            yield Fault("base_url", unused)
        if model.api_key_env is not None:
            yield Fault("api_key_env", unused)
    if model.base_url is not None:
        yield from _url_faults("base_url", model.base_url)
    elif model.private_host:
        yield Fault("private_host", "means nothing without base_url: no provider's host is yours")
    key = model.api_key_env
    if key is not None and not (key.isascii() and key.isidentifier()):
        # Not quoted: who gets this wrong has often written the key itself.
        text = "must be the name of an environment variable, not the key itself"
        yield Fault("api_key_env", text)


def _quota_faults(quota: ResourceQuota) -> Iterator[Fault]:
    yield from count_faults("max_iterations", quota.max_iterations)
    yield from count_faults("max_tool_calls", quota.max_tool_calls)
    cost = quota.max_cost_usd
    if not (_is_number(cost) and 0 <= cost < math.inf):
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
    )
    for name, seconds in limits:
        if seconds is None:
            continue
        if not (_is_number(seconds) and 0 < seconds < math.inf):
            text = f"must be a finite number > 0, got {shown(seconds)}"
            yield Fault(name, text)


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
            if server.url is not None:
                yield Fault("url", "means nothing with stdio transport; use http")
        case McpTransport.HTTP:
            if server.url is None:
                text = f"MCP server {name!r} uses http transport but has no url"
                yield Fault("url", text)
            else:
                yield from _url_faults("url", server.url)
            if server.command:
                yield Fault("command", "means nothing with http transport; use stdio")
        case _:
            assert_never(server.transport)
    yield from text_faults("capabilities", server.capabilities)


def _url_faults(path: str, url: str) -> Iterator[Fault]:
    parts = _http_parts(url)
    if "@" in (parts.netloc if parts else url):
        yield Fault(path, "must not carry a user name or password")
    elif parts is None:
        text = f"must be a URL such as 'http://127.0.0.1:8080/v1', got {shown(url)}"
        yield Fault(path, text)


def _http_parts(url: str) -> SplitResult | None:
    """Return the parts of an http or https URL. ``None``: it is none."""
    # urlsplit() drops some of these in silence, and clients disagree about what a
    # backslash means, so the host that is judged might not be the one that is asked.
    if any(sign.isspace() or not sign.isprintable() or sign == "\\" for sign in url):
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0
    return parts if fine else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

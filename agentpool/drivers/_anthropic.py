"""A driver for every server that speaks Anthropic's Messages API."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, final

import attrs

from agentpool._checks import expect_arguments
from agentpool._loop.conversation import request_tokens
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.request_settings import thinking_budget
from agentpool._messages import ANSWER_TOKENS, CompletionRequest, Json, answer_tokens
from agentpool._opening import opening
from agentpool.drivers._hosted import ApiKey, Exchange, HostedDriver, HostedSettings
from agentpool.drivers._http import open_http
from agentpool.drivers._prices import Prices, find_price
from agentpool.drivers.wire._attachments import (
    ANTHROPIC_ATTACHED_BYTES,
    ANTHROPIC_IMAGE_BYTES,
    ANTHROPIC_IMAGE_PIXELS,
)
from agentpool.drivers.wire._image_tokens import counting_of
from agentpool.drivers.wire._many_images import within_image_count
from agentpool.drivers.wire._messages_answer import MessageAccumulator
from agentpool.drivers.wire._messages_request import MessageOptions, encode_request
from agentpool.drivers.wire._provider_parts import Origin

if TYPE_CHECKING:
    import httpx

ANTHROPIC_BASE_URL: Final = "https://api.anthropic.com/v1"

# Source: https://docs.claude.com/en/api/versioning (2026-11).
ANTHROPIC_VERSION: Final = "2023-06-01"


@final
@attrs.define(eq=False, repr=False)
class AnthropicDriver(HostedDriver):
    """A model behind the Messages API. Opened by ``open_anthropic``."""

    _options: MessageOptions

    def _exchange(self, request: CompletionRequest, prefix: str, key: str) -> Exchange:
        options, limit = self._options, self._limit(request)
        if limit != options.max_output_tokens:
            options = attrs.evolve(options, max_output_tokens=limit)
        return Exchange(
            path="/messages",
            body=encode_request(request, options),
            begin_answer=partial(
                MessageAccumulator,
                call_id_prefix=prefix,
                secret=key,
                origin=Origin(self._options.provider, request.model or self._settings.model),
            ),
            secret=key,
        )

    @property
    def most_image_bytes(self) -> int:
        """The largest image: 5 MiB in base64."""
        return ANTHROPIC_IMAGE_BYTES

    @property
    def most_image_pixels(self) -> int:
        """The longest side of an image: 8,000 pixels."""
        return ANTHROPIC_IMAGE_PIXELS

    @property
    def _most_attached_bytes(self) -> int:
        """The most base64 in one request, whose limit is 32 MB."""
        return ANTHROPIC_ATTACHED_BYTES

    def _within_image_count(self, request: CompletionRequest) -> CompletionRequest:
        return within_image_count(request)

    def _limit(self, request: CompletionRequest) -> int | None:
        """Return the limit of the answer when *request* sets no limit. ``None``: unknown.

        The API refuses a request if the question and the limit together exceed the window.
        """
        most, window = self._settings.max_output_tokens, self._settings.context_window
        if window is None or request.max_tokens is not None:
            return most
        if most is None:
            most = ANSWER_TOKENS + thinking_budget(self._options.extra)
        usual = answer_tokens(None, window)
        sent = request_tokens(request, window, self.attachment_tokens) - usual
        return min(most, max(window - sent, usual))

    def _key_headers(self, key: str) -> Mapping[str, str]:
        return {"x-api-key": key}


@opening("driver")
@contextlib.asynccontextmanager
async def open_anthropic(
    model: str,
    *,
    base_url: str = ANTHROPIC_BASE_URL,
    api_key: ApiKey = None,
    context_window: int | None = None,
    privacy: PrivacyTier = PrivacyTier.STANDARD,
    price: Prices | None = None,
    options: Mapping[str, Json] | None = None,
    max_output_tokens: int | None = None,
    cache: bool = True,
    inputs: frozenset[str] | None = None,
    headers: Mapping[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
    proxy: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[AnthropicDriver]:
    """Open a driver for *model* at *base_url*; nothing is sent until the first request.

    Args:
        model: The provider's name of the model.
        base_url: The address of the API, with its version: ``http://127.0.0.1:8080/v1``.
        api_key: The key, or a function that returns it. It never appears in a repr, error or log.
        context_window: Tokens of request and answer together. ``None``: unknown.
        privacy: The tier of the server. Only the caller knows it.
        price: One price, a function, or a table by models. ``None``: from the ``prices`` extra.
        options: Other fields of each request's body, such as ``thinking``.
        max_output_tokens: The most that the model can write. ``None``: unknown.
        cache: Whether the provider may cache the request, which makes the next one cheaper.
        inputs: What the model reads besides text: ``image``, ``pdf``. ``None``: unknown.
        headers: Headers for every request, such as ``anthropic-beta``.
        verify: Whether to check certificates, or the TLS context to use.
        proxy: The URL of a proxy.
        transport: An httpx transport to use instead of our own; it is left open at the end.

    Raises:
        UsageError: If the URL, the key, a header or an option cannot be used.

    Cancellation:
        Every connection is closed.
    """
    expect_arguments(open_anthropic, locals())
    sent = {"anthropic-version": ANTHROPIC_VERSION, **(headers or {})}
    async with open_http(
        base_url, headers=sent, verify=verify, proxy=proxy, transport=transport
    ) as client:
        settings = HostedSettings(
            model=model, api_key=api_key, context_window=context_window, privacy=privacy,
            price=await find_price(price, base_url), max_output_tokens=max_output_tokens,
            inputs=inputs, options=options or {}, wire="messages",
            counting=counting_of(client.host, model),
        )  # fmt: skip
        extra = settings.options
        wire = MessageOptions(model=model, cache=cache, provider=client.place, extra=extra)
        yield AnthropicDriver(client, settings, wire)

"""A driver for everything that speaks OpenAI Chat Completions over HTTP."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Final, final

import attrs

from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import CompletionRequest
from agentpool.drivers._hosted import ApiKey, Exchange, HostedDriver, HostedSettings
from agentpool.drivers._http import open_http
from agentpool.drivers._prices import Prices, find_price
from agentpool.drivers.wire._openai_chat import ChatAccumulator, ChatOptions, encode_request

if TYPE_CHECKING:
    import httpx

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"


@final
@attrs.define(eq=False, repr=False)
class OpenAIDriver(HostedDriver):
    """A model behind the Chat Completions API. Made by ``open_openai``."""

    _is_openai: bool
    """Whether it is OpenAI itself."""

    def _exchange(self, request: CompletionRequest, prefix: str, key: str) -> Exchange:
        options = ChatOptions(model=self._settings.model, is_openai=self._is_openai)
        return Exchange(
            path="/chat/completions",
            body=encode_request(request, options),
            accumulator=ChatAccumulator(call_id_prefix=prefix, secret=key),
            secret=key,
        )

    def _key_headers(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}


@contextlib.asynccontextmanager
async def open_openai(
    model: str,
    *,
    base_url: str = OPENAI_BASE_URL,
    api_key: ApiKey = None,
    context_window: int | None = None,
    privacy: PrivacyTier = PrivacyTier.STANDARD,
    price: Prices | None = None,
    headers: Mapping[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
    proxy: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[OpenAIDriver]:
    """Open a driver for *model* at *base_url*.

    Nothing is sent until the first request.

    Args:
        model: The provider's name of the model.
        base_url: Where the API is, with its version: ``http://127.0.0.1:8080/v1``.
        api_key: The key, or what returns it. It appears in no repr, error or log.
        context_window: Tokens of request and answer together. ``None``: unknown.
        privacy: The tier of that place. Only the caller knows it.
        price: What usage costs: one ``TokenPrice``, a function, or a table from the names of
            models to their prices. ``None``, or not in the table: what genai-prices says, if
            it is installed (``trio-agentpool[prices]``) and knows the model at *base_url*;
            else nobody knows.
        headers: Sent with every request, such as an organisation.
        verify: Whether to check certificates, or the TLS context to use.
        proxy: The URL of a proxy.
        transport: An httpx transport to use instead; left open at the end.

    Raises:
        UsageError: If the URL, the key or a header cannot be used.

    Cancellation:
        Every connection is closed.
    """
    async with open_http(
        base_url, headers=headers, verify=verify, proxy=proxy, transport=transport
    ) as client:
        settings = HostedSettings(
            model=model,
            api_key=api_key,
            context_window=context_window,
            privacy=privacy,
            price=await find_price(price, base_url),
        )
        yield OpenAIDriver(client, settings, base_url.rstrip("/") == OPENAI_BASE_URL)

"""A driver for everything that speaks OpenAI Chat Completions over HTTP."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Final, final

import attrs

from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.model import MaxTokensField
from agentpool._messages import CompletionRequest, Json
from agentpool.drivers._hosted import ApiKey, Exchange, HostedDriver, HostedSettings
from agentpool.drivers._http import open_http
from agentpool.drivers._prices import Prices, find_price
from agentpool.drivers.wire._call_ids import CHAT_IDS, MISTRAL_IDS
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._chat_request import ChatOptions, encode_request
from agentpool.drivers.wire._parts import Origin

if TYPE_CHECKING:
    import httpx

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"

OPENAI_HOST: Final = "api.openai.com"

# They refuse the older name for newer models. Source: OpenHands#11662, CLIProxyAPI#2101 and
# opencode#37964 on GitHub, and OpenAI's page on data residency (2026-11).
_NEWER_HOSTS: Final = (
    OPENAI_HOST,
    ".api.openai.com",
    ".openai.azure.com",
    ".services.ai.azure.com",
    "models.github.ai",
    "models.inference.ai.azure.com",
)


def _usual_field(place: str) -> MaxTokensField:
    """Return what the server at *place* calls the limit of an answer."""
    is_newer = any(place == host or place.endswith(host) for host in _NEWER_HOSTS)
    return "max_completion_tokens" if is_newer else "max_tokens"


@final
@attrs.define(eq=False, repr=False)
class OpenAIDriver(HostedDriver):
    """A model behind the Chat Completions API. Made by ``open_openai``."""

    _options: ChatOptions

    def _exchange(self, request: CompletionRequest, prefix: str, key: str) -> Exchange:
        return Exchange(
            path="/chat/completions",
            body=encode_request(request, self._options),
            accumulator=ChatAccumulator(
                call_id_prefix=prefix,
                secret=key,
                origin=Origin(self._options.provider, request.model or self._settings.model),
            ),
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
    options: Mapping[str, Json] | None = None,
    max_tokens_field: MaxTokensField | None = None,
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
        price: What usage costs: one ``TokenPrice``, a function, or a table by the names of
            models. What it leaves open is looked up if ``trio-agentpool[prices]`` is installed.
        options: Other fields of each request's body, such as ``service_tier``.
        max_tokens_field: What the server calls the limit of an answer. ``None``: as usual.
        headers: Sent with every request, such as an organisation.
        verify: Whether to check certificates, or the TLS context to use.
        proxy: The URL of a proxy.
        transport: An httpx transport to use instead; left open at the end.

    Raises:
        UsageError: If the URL, the key, a header or an option cannot be used.

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
            options=options or {},
        )
        wire = ChatOptions(
            model=model,
            is_openai=client.place == OPENAI_HOST,
            max_tokens_field=max_tokens_field or _usual_field(client.place),
            provider=client.place,
            call_ids=MISTRAL_IDS if client.place == "api.mistral.ai" else CHAT_IDS,
            extra=settings.options,
        )
        yield OpenAIDriver(client, settings, wire)

"""A driver for OpenAI's Responses API, and for every server with Chat Completions."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, final

import attrs

from agentpool._checks import expect_arguments
from agentpool._errors import BadRequestError
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.model import MaxTokensField
from agentpool._manifest.providers import Rules
from agentpool._manifest.wires import OPENAI_HOST, Api, is_openai, wants_effort, wire_of
from agentpool._messages import AssistantMessage, Completion, CompletionRequest, Json
from agentpool._opening import opening
from agentpool.abc import OnDelta, OnSent
from agentpool.drivers._hosted import ApiKey, Exchange, HostedDriver, HostedSettings
from agentpool.drivers._http import HttpClient, open_http
from agentpool.drivers._prices import Prices, find_price, own_price
from agentpool.drivers.wire._answer_form import Told, more_told, told_after
from agentpool.drivers.wire._call_ids import CHAT_IDS, MISTRAL_IDS
from agentpool.drivers.wire._chat_answer import ChatAccumulator
from agentpool.drivers.wire._chat_request import ChatOptions
from agentpool.drivers.wire._chat_request import encode_request as encode_chat_request
from agentpool.drivers.wire._image_tokens import counting_of
from agentpool.drivers.wire._provider_parts import Origin
from agentpool.drivers.wire._responses_answer import ResponseAccumulator
from agentpool.drivers.wire._responses_request import ResponsesOptions, takes
from agentpool.drivers.wire._responses_request import encode_request as encode_response_request

if TYPE_CHECKING:
    import httpx

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"

# It refuses unknown fields (openai-agents-python#442, crush#1590), and a user's words after
# the results of calls (goose#5998, zed#37021). (2026-11)
_MISTRAL_HOST: Final = "api.mistral.ai"
# It refuses schemas of answers (litellm#31466, inspect_ai#4916), and answers without thoughts
# where it thinks; an empty one is taken (Zoo-Code#201, continue#11285). (2026-11)
_DEEPSEEK_HOST: Final = "api.deepseek.com"
# It refuses answers without thoughts where it thinks, and those with an empty one as well; a
# space is taken (llmgateway#2093, pi#4178). (2026-11)
_MOONSHOT_HOSTS: Final = ("api.moonshot.ai", "api.moonshot.cn")

# It takes no form of an answer beside tools (vercel/ai#16540, agno#1065, 2026-11).
_GROQ_HOST: Final = "api.groq.com"

# Its models of the third generation and later want signatures with calls
# (https://ai.google.dev/gemini-api/docs/thought-signatures, 2026-11).
_GOOGLE_HOST: Final = ".googleapis.com"
# Older ones take no form of an answer beside tools (openai-agents-python#656,
# python-genai#867, 2026-11).
_OLDER_GEMINI: Final = ("gemini-1", "gemini-2", "google/gemini-1", "google/gemini-2")

# They refuse the older name for newer models. Source: OpenHands#11662, CLIProxyAPI#2101 and
# opencode#37964 on GitHub, and OpenAI's page on data residency (2026-11).
_NEWER_HOSTS: Final = (
    OPENAI_HOST,
    ".api.openai.com",
    ".openai.azure.com",
    ".services.ai.azure.com",
)


_NO_THOUGHTS: Final[Mapping[Rules, str]] = {"deepseek": "", "moonshot": " "}
"""The thoughts that these servers accept for an answer without thoughts."""


def _usual_field(place: str) -> MaxTokensField:
    """Return the name of the field for the answer's limit at the server *place*."""
    is_newer = any(place == host or place.endswith(host) for host in _NEWER_HOSTS)
    return "max_completion_tokens" if is_newer else "max_tokens"


def _rules_at(place: str) -> Rules | None:
    """Return the set of rules for the server at *place*. ``None``: the common ones."""
    if place == _MISTRAL_HOST:
        return "mistral"
    if place == _DEEPSEEK_HOST:
        return "deepseek"
    if place in _MOONSHOT_HOSTS:
        return "moonshot"
    if place == _GROQ_HOST:
        return "groq"
    return "gemini" if place.endswith(_GOOGLE_HOST) else None


def _chat_options(
    settings: HostedSettings,
    client: HttpClient,
    max_tokens_field: MaxTokensField | None,
    rules: Rules | None,
) -> ChatOptions:
    host = client.host
    rules = rules or _rules_at(host)
    is_older_gemini = rules == "gemini" and settings.model.startswith(_OLDER_GEMINI)
    return ChatOptions(
        model=settings.model,
        is_openai=is_openai(host),
        max_tokens_field=max_tokens_field or _usual_field(host),
        provider=client.place,
        call_ids=MISTRAL_IDS if rules == "mistral" else CHAT_IDS,
        has_schemas=rules != "deepseek",
        is_closed=rules == "mistral",
        has_files=rules != "mistral",
        needs_answers=rules == "mistral",
        told="beside_tools" if rules == "groq" or is_older_gemini else "never",
        needs_signatures=rules == "gemini" and not is_older_gemini,
        no_thought=_NO_THOUGHTS.get(rules) if rules else None,
        extra=settings.options,
    )


@final
@attrs.define(eq=False, repr=False)
class OpenAIDriver(HostedDriver):
    """A model behind Responses or Chat Completions. Opened by ``open_openai``."""

    _options: ChatOptions
    _api: Api | None
    """The API to use. ``None``: Responses. A request with fields that only Chat Completions knows
    is sent there, unless it has an effort, which Chat Completions may refuse together with
    tools."""
    _most_input_tokens: int | None = None
    _stale: frozenset[str] = attrs.field(init=False, default=frozenset())
    """Encrypted reasoning that the provider can no longer read."""

    @property
    def most_input_tokens(self) -> int | None:
        """The limit that the driver was opened with."""
        return self._most_input_tokens

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Ask the provider; after two kinds of refusal, change the request and ask again.

        If the provider can no longer read its own reasoning, that is left out from then on. If it
        refuses the form of an answer, perhaps only together with tools, the form is described in
        words from then on.

        Raises:
            DriverError: For any failure, as one of its subclasses.

        Cancellation:
            The connection is closed, which stops the model.
        """
        told = self._options.told
        known = self._stale  # of what is about to be sent; others may find out meanwhile
        try:
            return await super().complete(request, on_delta=on_delta, on_sent=on_sent)
        except BadRequestError as error:
            if not (self._forget(request, known, error) or self._tell(request, told, error)):
                raise
        return await super().complete(request, on_delta=on_delta, on_sent=on_sent)

    def _forget(
        self, request: CompletionRequest, known: frozenset[str], error: BadRequestError
    ) -> bool:
        """Leave out reasoning that the provider can no longer read. Return whether it may help."""
        stale = _data_of(request) - known
        if "invalid_encrypted_content" not in str(error) or not stale:
            return False
        self._stale |= stale
        return True

    def _tell(self, request: CompletionRequest, known: Told, error: BadRequestError) -> bool:
        """Describe refused answer forms in words. Return whether that may help."""
        told = told_after(str(error))
        if request.answer_form is None or more_told(told, known) == known:
            return False
        self._options = attrs.evolve(self._options, told=more_told(told, self._options.told))
        return True

    def _exchange(self, request: CompletionRequest, prefix: str, key: str) -> Exchange:
        options = self._options
        origin = Origin(options.provider, request.model or options.model)
        is_taken = takes(request) or wants_effort(request.reasoning_effort)
        if self._api == "responses" or (self._api is None and is_taken):
            wire = ResponsesOptions(
                model=options.model, provider=options.provider, extra=options.extra
            )
            return Exchange(
                path="/responses",
                body=encode_response_request(request, wire, self._stale),
                begin_answer=partial(
                    ResponseAccumulator, call_id_prefix=prefix, secret=key, origin=origin
                ),
                secret=key,
            )
        return Exchange(
            path="/chat/completions",
            body=encode_chat_request(request, options),
            begin_answer=partial(ChatAccumulator, call_id_prefix=prefix, secret=key, origin=origin),
            secret=key,
        )

    def _key_headers(self, key: str) -> Mapping[str, str]:
        return {"authorization": f"Bearer {key}"}


def _used(api: Api | None, wire: ChatOptions) -> Api | None:
    return api or (None if wire.is_openai else "chat")


def _data_of(request: CompletionRequest) -> frozenset[str]:
    return frozenset(
        part.data
        for message in request.messages
        if isinstance(message, AssistantMessage)
        for part in message.parts
        if part.kind == "item"
    )


@opening("driver")
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
    max_output_tokens: int | None = None,
    max_input_tokens: int | None = None,
    api: Api | None = None,
    rules: Rules | None = None,
    inputs: frozenset[str] | None = None,
    headers: Mapping[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
    proxy: str | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncGenerator[OpenAIDriver]:
    """Open a driver for *model* at *base_url*; nothing is sent until the first request.

    Args:
        model: The provider's name of the model.
        base_url: The address of the API, with its version: ``http://127.0.0.1:8080/v1``.
        api_key: The key, or a function that returns it. It never appears in a repr, error or log.
        context_window: Tokens of request and answer together. ``None``: unknown.
        privacy: The tier of the server. Only the caller knows it.
        price: One price, a function, or a table by models. ``None``: from the ``prices`` extra.
        options: Other fields of each request's body, such as ``service_tier``.
        max_tokens_field: The server's name for the limit of an answer. ``None``: the usual one.
        max_output_tokens: The most that the model can write. ``None``: unknown.
        max_input_tokens: The most that the model reads. ``None``: what fits into the window.
        api: ``chat`` or ``responses``. ``None``: ``responses`` at OpenAI, ``chat`` elsewhere.
        rules: The rules of a gateway's provider, such as ``deepseek``. ``None``: the host's rules.
        inputs: What the model reads besides text: ``image``, ``pdf``. ``None``: unknown.
        headers: Headers for every request, such as an organisation.
        verify: Whether to check certificates, or the TLS context to use.
        proxy: The URL of a proxy.
        transport: An httpx transport to use instead of our own; it is left open at the end.

    Raises:
        UsageError: If the URL, the key, a header or an option cannot be used.

    Cancellation:
        Every connection is closed.
    """
    expect_arguments(open_openai, locals())
    async with open_http(
        base_url, headers=headers, verify=verify, proxy=proxy, transport=transport
    ) as client:
        settings = HostedSettings(
            model=model, api_key=api_key, context_window=context_window, privacy=privacy,
            price=await find_price(price, base_url), own_price=own_price(price),
            max_output_tokens=max_output_tokens, inputs=inputs, options=options or {},
            wire=wire_of("openai", client.host, api),
            counting=counting_of(client.host, model, rules),
        )  # fmt: skip
        wire = _chat_options(settings, client, max_tokens_field, rules)
        yield OpenAIDriver(client, settings, wire, _used(api, wire), max_input_tokens)

"""A driver for everything that speaks OpenAI Chat Completions over HTTP."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias, final

import attrs
import trio

from agentpool._capability import PrivacyTier
from agentpool._errors import ProtocolError
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool.abc import Driver, OnDelta
from agentpool.drivers._http import HttpAnswer, HttpClient, open_http
from agentpool.drivers.wire._failure import failure_from_response, shown
from agentpool.drivers.wire._openai_chat import ChatAccumulator, ChatOptions, encode_request
from agentpool.drivers.wire._sse import SseParser

if TYPE_CHECKING:
    import httpx

OPENAI_BASE_URL: Final = "https://api.openai.com/v1"

# What follows [DONE] is the empty chunk that ends the body, mostly in the same packet.
# Waiting this long for it keeps the connection, which saves the next request a handshake.
_END_SECONDS: Final = 0.02

ApiKey: TypeAlias = str | Callable[[], str] | None
"""A key, or what returns the one to use now. ``None``: the server wants none."""

Price: TypeAlias = Callable[[Usage, str | None], float | None]
"""What usage of a model costs in US dollars. ``None``: nobody knows."""


async def chat(
    client: HttpClient,
    body: bytes,
    accumulator: ChatAccumulator,
    *,
    on_delta: OnDelta | None,
    secret: str = "",
) -> Completion:
    """Send a chat completion request and put its streamed answer together.

    Raises:
        DriverError: In one of its subclasses, whatever went wrong.

    Cancellation:
        The connection is closed, which stops the model.
    """
    async with client.post_stream("/chat/completions", body) as answer:
        await _refuse_other_answers(answer, secret=secret)
        parser = SseParser()
        while not accumulator.done:
            piece = await answer.receive()
            if not piece:
                break
            for event in parser.feed(piece):
                for text in accumulator.feed(event):
                    if on_delta is not None:
                        on_delta(text)
        completion = accumulator.finish()
        if accumulator.done and not answer.has_ended:
            with trio.move_on_after(_END_SECONDS):
                await answer.receive()
        return completion


async def _refuse_other_answers(answer: HttpAnswer, *, secret: str) -> None:  # noqa: ASYNC910  # a good answer is not waited for
    if answer.status != 200:  # noqa: PLR2004  # the number is the name
        body = await answer.receive_all()
        raise failure_from_response(answer.status, answer.headers, body, secret=secret)
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        body = await answer.receive_all()
        came = shown(body.decode(errors="replace"), secret=secret)
        msg = f"the answer is {kind or 'of no type'!r} and no event stream: {came!r}"
        raise ProtocolError(msg, status_code=200)


@final
@attrs.frozen(kw_only=True)
class OpenAISettings:
    """What a driver was opened with."""

    model: str
    """The provider's name of the model."""
    api_key: ApiKey = attrs.field(repr=False)
    """The key, or what returns it."""
    context_window: int | None
    """Tokens of request and answer together. ``None``: unknown."""
    privacy: PrivacyTier
    """The tier of the place where the model is."""
    price: Price | None
    """What usage costs. ``None``: nobody knows."""
    is_openai: bool
    """Whether it is OpenAI itself."""


@final
@attrs.define(eq=False, repr=False)
class OpenAIDriver(Driver):
    """A model behind the Chat Completions API. Made by ``open_openai``."""

    _client: HttpClient
    _settings: OpenAISettings
    _last_key: str = attrs.field(init=False, default="", repr=False)
    _requests: int = attrs.field(init=False, default=0)

    @property
    def context_window(self) -> int | None:
        """The window that the driver was opened with."""
        return self._settings.context_window

    @property
    def privacy(self) -> PrivacyTier:
        """The tier that the driver was opened with."""
        return self._settings.privacy

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return what the price function says; ``None`` without one."""
        price = self._settings.price
        return None if price is None else price(usage, model or self._settings.model)

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Ask the provider.

        Raises:
            DriverError: In one of its subclasses, whatever went wrong.

        Cancellation:
            The connection is closed, which stops the model.
        """
        key = self._use_key()
        self._requests += 1
        accumulator = ChatAccumulator(call_id_prefix=f"call-{self._requests}", secret=key)
        options = ChatOptions(model=self._settings.model, is_openai=self._settings.is_openai)
        body = encode_request(request, options)
        return await chat(self._client, body, accumulator, on_delta=on_delta, secret=key)

    def _use_key(self) -> str:
        api_key = self._settings.api_key
        key = api_key() if callable(api_key) else api_key
        if key and key != self._last_key:
            self._client.set_headers({"authorization": f"Bearer {key}"})
            self._last_key = key
        return key or ""


@contextlib.asynccontextmanager
async def open_openai(
    model: str,
    *,
    base_url: str = OPENAI_BASE_URL,
    api_key: ApiKey = None,
    context_window: int | None = None,
    privacy: PrivacyTier = PrivacyTier.STANDARD,
    price: Price | None = None,
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
        price: What usage costs. ``None``: nobody knows.
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
        settings = OpenAISettings(
            model=model,
            api_key=api_key,
            context_window=context_window,
            privacy=privacy,
            price=price,
            is_openai=base_url.rstrip("/") == OPENAI_BASE_URL,
        )
        yield OpenAIDriver(client, settings)

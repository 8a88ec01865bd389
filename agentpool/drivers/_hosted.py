"""The common parts of drivers for hosted models: keys, facts, and one streamed exchange.

The wire modules say what is sent and what the answer means; this module sends it and passes on what
comes. A key is read again for each request, and never appears in a repr, error, log or event.
"""

from __future__ import annotations

import contextlib
import sys
from abc import abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeAlias, final

import attrs
import msgspec
import trio

from agentpool._attachments import Attachment
from agentpool._base import Unique
from agentpool._errors import DriverError, NetworkError, ProtocolError, UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.request_settings import options_faults
from agentpool._manifest.wires import Wire, option_faults
from agentpool._messages import Completion, CompletionRequest, Json, Usage
from agentpool._surrogates import request_without_halves
from agentpool.abc import OnDelta, OnSent, SendingDriver
from agentpool.drivers._forgotten_locals import forget_locals
from agentpool.drivers._hearer import Accumulator, Hearer
from agentpool.drivers._http import HttpAnswer, HttpClient
from agentpool.drivers._sent_headers import HiddenText
from agentpool.drivers.wire._attachments import check_attachments, within_request
from agentpool.drivers.wire._failure import failure_from_response, failure_in_body, shown
from agentpool.drivers.wire._image_tokens import Counting
from agentpool.drivers.wire._sse import (
    MAX_EVENT_BYTES,
    SseEvent,
    SseParser,
    begins_stream,
    may_begin_stream,
)

# What follows the last event is the empty chunk that ends the body, mostly in the same packet.
# Waiting this long for it keeps the connection, which saves the next request a handshake.
_END_SECONDS: Final = 0.02

ApiKey: TypeAlias = str | Callable[[], str] | None
"""A key, or a function that returns the current one. ``None``: the server needs no key."""

Price: TypeAlias = Callable[[Usage, str | None], float | None]
"""The cost of a model's usage in US dollars. ``None``: unknown."""


@final
@attrs.define(eq=False, kw_only=True, repr=False)
class Exchange:
    """One request, ready to be sent."""

    path: str
    """The path below the base URL."""
    body: bytes
    """The body, as JSON."""
    begin_answer: Callable[[], Accumulator]
    """Returns what collects the answer. It is not called before there is one: most of the time all
    requests of a pool wait, and the garbage collector looks at all that they hold."""
    secret: str = ""
    """The secret to redact in every error."""
    accumulator: Accumulator | None = attrs.field(init=False, default=None)
    """Collects the answer. ``None``: it has not begun."""


async def stream_completion(
    client: HttpClient,
    exchange: Exchange,
    *,
    on_delta: OnDelta | None,
    on_sent: OnSent | None = None,
) -> Completion:
    """Send a request and build its streamed answer.

    Raises:
        DriverError: For any failure, as one of its subclasses.

    Cancellation:
        The connection is closed, which stops the model.
    """
    outside = sys.exception()
    async with client.post_stream(exchange.path, exchange.body, on_sent=on_sent) as answer:
        exchange.accumulator = exchange.begin_answer()
        hearer = Hearer(exchange.accumulator, on_delta)
        # Here is no text of the provider's, and below it is forgotten if it is an error.
        try:
            return await _take_answer(answer, hearer, secret=exchange.secret)
        except DriverError as error:
            forget_locals(error, outside=outside)
            raise


async def _take_answer(answer: HttpAnswer, hearer: Hearer, *, secret: str) -> Completion:
    """Return an answer once it has arrived, or raise if it is an error or not an answer."""
    accumulator = hearer.accumulator
    first = await _refuse_other_answers(answer, secret=secret)
    if first is not None and not begins_stream(first):
        return await _take_whole(answer, first, hearer, secret=secret)
    parser = SseParser()
    while not accumulator.done:
        try:
            piece = first or await answer.receive()
        except NetworkError:
            if not accumulator.has_ended:
                raise
            # The answer is whole; at most what it took is not known.
            _take_end(parser, hearer, secret=secret)
            return accumulator.finish()
        first = None
        if not piece:
            _take_end(parser, hearer, secret=secret)
            break
        for event in parser.feed(piece):
            hearer.feed(event)
    completion = accumulator.finish()
    if accumulator.done and not answer.has_ended:
        # The answer is whole: what happens to the connection now is not harm to it.
        with trio.move_on_after(_END_SECONDS), contextlib.suppress(DriverError):
            await answer.receive()
    return completion


def _take_end(parser: SseParser, hearer: Hearer, *, secret: str) -> None:
    """Handle a last event that has no empty line after it, or raise if it is an error."""
    event = parser.end()
    if failure := failure_in_body(parser.stray, secret=secret, is_bare=True):
        raise failure
    if event is not None:
        # What was cut off is nothing: the answer has not ended, and says so itself.
        with contextlib.suppress(ProtocolError):
            hearer.feed(event)


async def _take_whole(
    answer: HttpAnswer, first: bytes, hearer: Hearer, *, secret: str
) -> Completion:  # noqa: ASYNC910  # what has arrived is not waited for
    """Return an answer that did not arrive as a stream.

    Raises:
        DriverError: If it is an error, or not an answer.
    """
    body = bytearray(first)
    is_json = "json" in answer.headers.get("content-type", "").lower()
    if is_json or first.lstrip().startswith((b"{", b"[")):
        while (piece := await answer.receive()) and len(body) <= MAX_EVENT_BYTES:
            body += piece
    else:
        # A page or the like, from another server than was meant: read to be shown in the error.
        body += await answer.receive_explanation()
    whole = bytes(body)
    if failure := failure_in_body(whole, secret=secret, is_bare=True):
        raise failure
    text = whole.decode(errors="replace")
    with contextlib.suppress(ProtocolError, NetworkError):
        hearer.feed(SseEvent(text))
        return hearer.accumulator.finish()  # noqa: ASYNC910  # the same
    kind = shown(answer.headers.get("content-type", ""), secret=secret) or "none"
    came = shown(text, secret=secret)
    raise ProtocolError(
        f"expected an event stream, got content type {kind}: {came!r}; check model.base_url",
        status_code=answer.status,
    )


async def _refuse_other_answers(answer: HttpAnswer, *, secret: str) -> bytes | None:  # noqa: ASYNC910  # a good answer is not waited for
    """Return the beginning of an answer whose type is not a stream's. ``None``: it is a stream.

    Raises:
        DriverError: If the provider refused.
    """
    if answer.status != 200:  # noqa: PLR2004  # the number is the name
        body = await answer.receive_explanation()
        headers = answer.headers_to_show()
        # Without a date, what it says of a time of day is compared with our own clock.
        headers.setdefault("date", datetime.now(UTC).isoformat())
        raise failure_from_response(answer.status, headers, body, secret=secret)
    kind = answer.headers.get("content-type", "")
    if kind.lower().startswith("text/event-stream"):
        return None  # noqa: ASYNC910  # see above
    first = b""
    while may_begin_stream(first) and (piece := await answer.receive()):
        first += piece
    return first  # noqa: ASYNC910  # one piece at least is waited for


def check_options(options: Mapping[str, Json], wire: Wire = "chat") -> None:
    """Raise if *options* have a field that the wires set themselves, or one of a wrong type.

    Raises:
        UsageError: If they have such a field. The error names it, and what to use instead.
    """
    if faults := (*options_faults(options), *option_faults(wire, options)):
        raise UsageError("; ".join(map(str, faults)))


@final
@attrs.frozen(kw_only=True)
class HostedSettings:
    """The arguments that a driver was opened with."""

    model: str
    """The provider's name of the model."""
    api_key: ApiKey = attrs.field(repr=False)
    """The key, or a function that returns it."""
    context_window: int | None
    """Tokens of request and answer together. ``None``: unknown."""
    privacy: PrivacyTier
    """The tier of the server with the model."""
    price: Price | None
    """The cost of usage. ``None``: unknown."""
    own_price: Price | None = None
    """The user's price, which has precedence over the server's. ``None``: none was given."""
    max_output_tokens: int | None = None
    """The most tokens that the model can write. ``None``: unknown."""
    inputs: frozenset[str] | None = None
    """The inputs besides text: ``image``, ``pdf``. ``None``: unknown."""
    counting: Counting | None = None
    """How the provider counts images and documents. ``None``: unknown."""
    options: Mapping[str, Json] = attrs.field(factory=dict[str, Json])
    """Other fields of each request's body."""
    wire: Wire
    """The wire format for asking the model."""

    def __attrs_post_init__(self) -> None:
        """Refuse options that the wires set themselves, or could not send."""
        check_options(self.options, self.wire)


@attrs.define(eq=False, repr=False)
class HostedDriver(Unique, SendingDriver):
    """A model behind an API. Each subclass implements one wire format."""

    _client: HttpClient
    _settings: HostedSettings
    _last_key: str = attrs.field(init=False, default="")
    _requests: int = attrs.field(init=False, default=0)

    def _repr_words(self) -> str:
        return repr(self._settings.model)

    @property
    def context_window(self) -> int | None:
        """The window that the driver was opened with."""
        return self._settings.context_window

    @property
    def max_output_tokens(self) -> int | None:
        """The limit that the driver was opened with."""
        return self._settings.max_output_tokens

    @property
    def inputs(self) -> frozenset[str] | None:
        """The inputs that the driver was opened with."""
        return self._settings.inputs

    def attachment_tokens(self, attachment: Attachment) -> int:
        """Return the provider's own count; for an unknown provider, the highest of all."""
        counting = self._settings.counting
        return attachment.tokens if counting is None else counting.tokens(attachment)

    @property
    def _most_attached_bytes(self) -> int | None:
        """The maximum base64 in the attachments of one request. ``None``: no known limit."""
        return None

    def _within_image_count(self, request: CompletionRequest) -> CompletionRequest:
        """Return *request* with no more images than the provider accepts, or raise."""
        return request

    @property
    def privacy(self) -> PrivacyTier:
        """The tier that the driver was opened with."""
        return self._settings.privacy

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:
        """Return the result of the price function. ``None``: there is no such function."""
        price = self._settings.price
        return None if price is None else price(usage, model or self._settings.model)

    async def complete(
        self,
        request: CompletionRequest,
        *,
        on_delta: OnDelta | None = None,
        on_sent: OnSent | None = None,
    ) -> Completion:
        """Ask the provider.

        Raises:
            DriverError: For any failure, as one of its subclasses.

        Cancellation:
            The connection is closed, which stops the model.
        """
        check_attachments(
            request,
            self.inputs,
            most_image_bytes=self.most_image_bytes,
            most_image_pixels=self.most_image_pixels,
        )
        request = within_request(self._within_image_count(request), self._most_attached_bytes)
        key = self._use_key()
        self._requests += 1
        prefix = f"call-{self._requests}"
        try:
            exchange = self._exchange(request, prefix, key)
        except UnicodeEncodeError:
            exchange = self._exchange(request_without_halves(request), prefix, key)
        try:
            answer = await stream_completion(
                self._client, exchange, on_delta=on_delta, on_sent=on_sent
            )
        except DriverError as error:
            begun = exchange.accumulator
            self._bill(error, None if begun is None else begun.used())
            raise
        return msgspec.structs.replace(answer, cost_usd=self._cost_usd(answer))

    def _bill(self, error: DriverError, used: Completion | None) -> None:
        """Record the usage of the answer in *error*."""
        error.has_begun = used is not None
        if used is not None and (usage := used.usage) is not None:
            error.tokens = usage.input_tokens, usage.output_tokens
            said = self._cost_usd(used)
            error.cost_usd = self.price(usage, model=used.model) if said is None else said

    def _cost_usd(self, answer: Completion) -> float | None:
        """Return the cost of *answer*. ``None``: neither the user nor the server gives it.

        A gateway without a price reports that everything is free, so any other price has
        precedence.
        """
        usage, said = answer.usage, answer.cost_usd
        if said is None or usage is None:
            return said
        model, own = answer.model or self._settings.model, self._settings.own_price
        cost_usd = None if own is None else own(usage, model)
        if cost_usd is None and not said:
            cost_usd = self.price(usage, model=model)
        return said if cost_usd is None else cost_usd

    @abstractmethod
    def _exchange(self, request: CompletionRequest, prefix: str, key: str) -> Exchange:
        """Return the request to send. *prefix* begins the ids of calls without one."""

    @abstractmethod
    def _key_headers(self, key: str) -> Mapping[str, str]:
        """Return the headers that carry the key."""

    def _use_key(self) -> str:
        api_key = self._settings.api_key
        key = HiddenText((api_key() if callable(api_key) else api_key) or "")
        if key != self._last_key:
            # Without a key the old one goes: it was taken away.
            self._client.set_headers(self._key_headers(key) if key else {})
            self._last_key = key
        return self._last_key

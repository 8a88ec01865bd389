"""Drivers for tests: a script of answers, or a function that answers.

Both record their requests, so that a test can check them. A test that never does proves little: any
prompt would get the same answers.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, TypeAlias, assert_never, cast, final

import attrs
import msgspec
import trio

from agentpool._amounts import counted
from agentpool._checks import (
    at_least,
    expect,
    expect_arguments,
    expect_each,
    expect_fields,
    expect_function,
    expect_whole,
)
from agentpool._errors import ProtocolError, UsageError
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    Completion,
    CompletionRequest,
    FinishReason,
    Json,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
    estimate_tokens,
)
from agentpool.abc import Driver, OnDelta

# As large as the window of the packaged local model, so that a scenario moves from the
# one to the other without a new limit.
DEFAULT_CONTEXT_WINDOW: Final = 8192

Step: TypeAlias = Completion | str | Exception
"""An answer, the text of an answer, or an error to raise."""

Answer: TypeAlias = Completion | str
"""An answer, or the text of an answer."""

AnswerFunction: TypeAlias = Callable[[CompletionRequest], Answer | Awaitable[Answer]]
"""Answers a request, async or not."""


def say(
    text: str, *, usage: Usage | None = None, finish_reason: FinishReason = FinishReason.END_TURN
) -> Completion:
    """Make an answer with *text*."""
    expect_arguments(say, locals())
    return Completion(text=text, finish_reason=finish_reason, usage=usage)


def call(name: str, /, **arguments: Json) -> Completion:
    """Make an answer that calls the tool *name*.

    The driver sets the id of the call by numbering its calls: if the same answer is given twice,
    the ids differ.

    >>> call("add", a=1, b=2).tool_calls[0].arguments
    '{"a":1,"b":2}'
    """
    if type(name) is not str:
        expect_arguments(call, locals())
    encoded = msgspec.json.encode(arguments).decode()
    return calls_of((ToolCall(call_id="", name=name, arguments=encoded),))


def calls(*answers: Completion, text: str = "", usage: Usage | None = None) -> Completion:
    """Combine several calls into one answer: ``calls(call("add", a=1), call("now"))``."""
    expect_arguments(calls, locals())
    return calls_of(
        tuple(one for answer in answers for one in answer.tool_calls), text=text, usage=usage
    )


def calls_of(
    tool_calls: tuple[ToolCall, ...], *, text: str = "", usage: Usage | None = None
) -> Completion:
    """Make an answer with *tool_calls*, whose arguments may be any text."""
    return Completion(
        text=text, tool_calls=tool_calls, finish_reason=FinishReason.TOOL_USE, usage=usage
    )


@final
@attrs.frozen(kw_only=True)
class FakeFacts:
    """The facts that a driver for tests reports about itself."""

    context_window: int | None
    """Tokens of request and answer together. ``None``: unknown."""
    privacy: PrivacyTier
    """The privacy tier to report."""
    price_per_token_usd: float | None
    """The price of a token, input or output. ``None``: unknown."""
    pieces: int
    """How many pieces of a text go to ``on_delta``."""
    record: bool
    """Whether requests are kept."""
    estimate_usage: bool
    """Whether an answer without usage gets an estimated one."""

    def __attrs_post_init__(self) -> None:
        """Refuse fields of the wrong type."""
        expect_fields(self, of="FunctionDriver")
        at_least(1, "pieces", self.pieces)
        price = self.price_per_token_usd
        if price is not None and not 0.0 <= price < math.inf:
            raise UsageError(
                f"price_per_token_usd must be finite and >= 0, got {price!r}; None is unknown"
            )


@attrs.define(eq=False, repr=False)
class FakeDriver(Driver):
    """Base class of the drivers for tests. Subclasses implement ``_answer``."""

    _facts: FakeFacts
    _requests: list[CompletionRequest] = attrs.field(init=False, factory=list[CompletionRequest])
    _numbered_calls: int = attrs.field(init=False, default=0)

    @property
    def requests(self) -> tuple[CompletionRequest, ...]:
        """Every request so far, with its messages as they were at that moment.

        Raises:
            UsageError: If the driver was made with ``record=False``.
        """
        if not self._facts.record:
            msg = "requests were not kept, because of record=False; use record=True to look"
            raise UsageError(msg)
        return tuple(self._requests)

    @property
    def context_window(self) -> int | None:
        """The window that the driver was made with."""
        return self._facts.context_window

    @property
    def privacy(self) -> PrivacyTier:
        """The tier that the driver was made with."""
        return self._facts.privacy

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # one price for all models
        """Return the price per token times all tokens. ``None``: unknown."""
        if self._facts.price_per_token_usd is None:
            return None
        return usage.total_tokens * self._facts.price_per_token_usd

    async def complete(
        self, request: CompletionRequest, *, on_delta: OnDelta | None = None
    ) -> Completion:
        """Answer *request*, after a checkpoint.

        Raises:
            ProtocolError: If the script has no answer left.
            Exception: What the script or the function raises.

        Cancellation:
            At the first checkpoint, nothing was recorded and no answer was used. Between two
            pieces, the answer counts as used and is lost.
        """
        await trio.lowlevel.checkpoint()
        # No await from here to the answer: requests and answers pair up in one order.
        if self._facts.record:
            # The conversation is a live view that goes on growing: keep what it is now.
            self._requests.append(
                msgspec.structs.replace(request, messages=tuple(request.messages))
            )
        answer = self._answer(request)
        if inspect.isawaitable(answer):
            answer = await answer
        completion = self._filled(answer, request)
        if on_delta is not None and completion.text:
            await self._stream(completion.text, on_delta)
        return completion

    @abstractmethod
    def _answer(self, request: CompletionRequest) -> Answer | Awaitable[Answer]: ...

    def _filled(self, answer: Answer, request: CompletionRequest) -> Completion:
        given = cast("object", answer)  # foreign code, and type checkers are optional
        advice = "write return before the answer"
        if given is not None:
            advice = "return a str, or agentpool.drivers.Completion(...)"
        what = "the function must return text or a Completion"
        expect(answer, (str, Completion), what, advice)
        completion = Completion(text=answer) if isinstance(answer, str) else answer
        try:
            return self._completed(completion, request)
        except (AttributeError, TypeError, UsageError):
            # The pool checks each answer; this one cannot even be completed.
            expect_whole(completion, of="answer of the driver: ")
            raise

    def _completed(self, completion: Completion, request: CompletionRequest) -> Completion:
        completion.text.isascii()  # or it could not be streamed
        if any(not one.call_id for one in completion.tool_calls):
            numbered = tuple(self._numbered(one) for one in completion.tool_calls)
            completion = msgspec.structs.replace(completion, tool_calls=numbered)
        if completion.usage is None and self._facts.estimate_usage:
            completion = msgspec.structs.replace(
                completion, usage=estimate_usage(request, completion)
            )
        return completion

    def _numbered(self, tool_call: ToolCall) -> ToolCall:
        if tool_call.call_id:
            return tool_call
        self._numbered_calls += 1
        return msgspec.structs.replace(tool_call, call_id=f"call-{self._numbered_calls}")

    async def _stream(self, text: str, on_delta: OnDelta) -> None:  # noqa: ASYNC910  # complete() has had its checkpoint
        size = -(-len(text) // self._facts.pieces)
        for start in range(0, len(text), size):
            if start:
                await trio.lowlevel.checkpoint()
            on_delta(text[start : start + size])


@final
class ScriptedDriver(FakeDriver):
    """Gives the answers of a script, one for each request, in the order of the requests.

    Agents that run side by side may ask in any order. If each is to have an answer of its own, use
    a ``FunctionDriver``, or ``max_concurrent=1``.

    >>> from agentpool.drivers import ScriptedDriver, call
    >>> driver = ScriptedDriver([call("now"), "It is noon."])
    """

    __slots__ = ("_steps", "_taken")

    def __init__(
        self,
        steps: Iterable[Step],
        *,
        context_window: int | None = DEFAULT_CONTEXT_WINDOW,
        privacy: PrivacyTier = PrivacyTier.SOVEREIGN,
        price_per_token_usd: float | None = 0.0,
        pieces: int = 1,
        record: bool = True,
        estimate_usage: bool = True,
    ) -> None:
        """Make a driver that gives the answers in *steps*.

        Args:
            steps: One step for each request: an answer, its text, or an error to raise. The
                iterable may be endless; steps are taken as they are needed.
            context_window: The window to report. ``None``: unknown.
            privacy: The tier to report.
            price_per_token_usd: The price of a token, input or output. ``None``: unknown.
            pieces: How many pieces of a text go to ``on_delta``, with a checkpoint between two
                pieces.
            record: Whether to keep the requests. A benchmark should not.
            estimate_usage: Whether an answer without usage gets an estimated one. Estimating reads
                the whole conversation.
        """
        facts = FakeFacts(
            context_window=context_window,
            privacy=privacy,
            price_per_token_usd=price_per_token_usd,
            pieces=pieces,
            record=record,
            estimate_usage=estimate_usage,
        )
        expect_each(
            steps, Completion, "steps must be an iterable of answers", "write ['text', ...]"
        )
        FakeDriver.__init__(self, facts)
        self._steps: Iterator[Step] = iter(steps)
        self._taken = 0

    def _repr_words(self) -> str:
        return counted(self._taken, "step") + " taken"

    def _answer(self, request: CompletionRequest) -> Answer:  # noqa: ARG002  # it answers without looking
        for step in self._steps:
            self._taken += 1
            if isinstance(step, Exception):
                raise step
            expect(
                step, (str, Completion), f"step {self._taken} of the script must be text, a "
                "Completion or an error", "write 'text', say('text') or call('tool', key='value')",
            )  # fmt: skip
            return step
        steps = counted(self._taken, "step")
        msg = f"the script has {steps} and was asked for one more; add a step"
        raise ProtocolError(msg)


@final
class FunctionDriver(FakeDriver):
    """Calls a function for each answer.

    >>> from agentpool.drivers import FunctionDriver
    >>> driver = FunctionDriver(lambda request: request.messages[-1].text.upper())
    """

    __slots__ = ("_function",)

    def __init__(
        self,
        function: AnswerFunction,
        *,
        context_window: int | None = DEFAULT_CONTEXT_WINDOW,
        privacy: PrivacyTier = PrivacyTier.SOVEREIGN,
        price_per_token_usd: float | None = 0.0,
        pieces: int = 1,
        record: bool = True,
        estimate_usage: bool = True,
    ) -> None:
        """Make a driver that calls *function* for each answer.

        Args:
            function: Called with each request. It may be async; otherwise it must not block.
            context_window: The window to report. ``None``: unknown.
            privacy: The tier to report.
            price_per_token_usd: The price of a token, input or output. ``None``: unknown.
            pieces: How many pieces of a text go to ``on_delta``, with a checkpoint between two
                pieces.
            record: Whether to keep the requests.
            estimate_usage: Whether an answer without usage gets an estimated one.
        """
        facts = FakeFacts(
            context_window=context_window,
            privacy=privacy,
            price_per_token_usd=price_per_token_usd,
            pieces=pieces,
            record=record,
            estimate_usage=estimate_usage,
        )
        expect_function(
            function, "function must be a function of a request", "write lambda request: 'text'"
        )
        FakeDriver.__init__(self, facts)
        self._function = function

    def _repr_words(self) -> str:
        return f"of {getattr(self._function, '__name__', 'a function')}"

    def _answer(self, request: CompletionRequest) -> Answer | Awaitable[Answer]:
        return self._function(request)


def estimate_usage(request: CompletionRequest, completion: Completion) -> Usage:
    """Estimate the tokens of *request* and *completion* from their texts."""
    heard = estimate_tokens(request.system) + sum(map(_weight, request.messages))
    said = _weight(AssistantMessage(completion.text, completion.tool_calls))
    return Usage(input_tokens=heard, output_tokens=said)


def _weight(message: ChatMessage) -> int:
    match message:
        case UserMessage(text=text):
            return estimate_tokens(text)
        case ToolMessage(content=content):
            return estimate_tokens(content)
        case AssistantMessage(text=text, tool_calls=tool_calls):
            return estimate_tokens(text) + sum(
                estimate_tokens(one.name) + estimate_tokens(one.arguments) for one in tool_calls
            )
        case _:
            assert_never(message)

"""Estimates the tokens of a request before it is made.

Rules:

1. The input is estimated as the bytes of all that is sent, including the schema of the answer,
   divided by 2.5. That is high on purpose: see ``estimate_tokens``. The output is ``max_tokens``,
   since a model cannot write more. If that is not set, a long answer is assumed.
2. The cost is the driver's price for exactly these tokens, as if none were cached. If the driver
   has no price, the cost is unknown, and not zero.
3. A conversation only grows, so a message that was measured is not measured again. If a part of it
   was left out or replaced, everything that is sent is measured again: it is never more than a
   window.

The estimate is only reserved. The usage that the provider reports replaces the estimate.
"""

from __future__ import annotations

from typing import Final, final

import msgspec

from agentpool._attachments import Attachment, CountAttachment, highest_tokens
from agentpool._base import Live
from agentpool._loop.conversation import fixed_tokens, message_tokens
from agentpool._loop.window import MessageView
from agentpool._messages import (
    AnswerForm,
    ChatMessage,
    CompletionRequest,
    ToolDefinition,
    ToolMessage,
    Usage,
    answer_tokens,
)
from agentpool._numbers import is_number, is_whole, plain_number

MOST_TOKENS: Final = 2**63 - 1
"""A larger number is no count of tokens, and could not be stored."""

_MOST_USD: Final = 1e15
"""A larger number is no price, and sums of such numbers would not be exact to a cent."""


def sound_cost(cost_usd: float | None) -> float | None:
    """Return *cost_usd* as a plain number. ``None``: it is negative, too large, or no number."""
    # It is foreign, and type checkers are optional.
    if cost_usd is None or not is_number(cost_usd) or not 0 <= cost_usd <= _MOST_USD:
        return None
    return plain_number(cost_usd)


def sound_usage(usage: Usage) -> Usage | None:
    """Return *usage* in plain numbers. ``None``: one of them cannot be a count of tokens."""
    if not means_nothing(usage):
        return usage
    counts = msgspec.structs.astuple(usage)
    if not all(map(is_whole, counts)):
        return None
    plain = Usage(*map(plain_number, counts))
    return None if means_nothing(plain) else plain


def means_nothing(usage: Usage) -> bool:
    """Return whether *usage* has a number that cannot be a count of tokens, or is not plain."""
    # Spelled out: a loop over the fields takes longer than the rest of the look at an answer. A
    # bool is an int, and so is its sum with others.
    return (
        type(usage.input_tokens) is not int
        or type(usage.output_tokens) is not int
        or type(usage.cached_tokens) is not int
        or type(usage.reasoning_tokens) is not int
        or type(usage.cache_write_tokens) is not int
        or type(usage.cache_write_hour_tokens) is not int
        or usage.input_tokens < 0
        or usage.output_tokens < 0
        or usage.cached_tokens < 0
        or usage.reasoning_tokens < 0
        or usage.cache_write_tokens < 0
        or usage.cache_write_hour_tokens < 0
        or usage.total_tokens > MOST_TOKENS
        or usage.cached_tokens + usage.cache_write_tokens > MOST_TOKENS
        or usage.reasoning_tokens + usage.cache_write_hour_tokens > MOST_TOKENS
    )


@final
class Estimator(Live):
    """Estimates the requests of one conversation, each from the previous one."""

    _system: str = ""
    _tools: tuple[ToolDefinition, ...] = ()
    _form: AnswerForm | None = None
    _fixed_tokens: int = 0
    _first: ChatMessage | None = None
    _last: ChatMessage | None = None
    _count: int = 0
    _tokens: int = 0
    _view: MessageView | None = None

    def estimate(
        self,
        request: CompletionRequest,
        window: int | None = None,
        count: CountAttachment = highest_tokens,
    ) -> Usage:
        """Return the estimated tokens of *request* and of its answer.

        Args:
            request: The request.
            window: Tokens that request and answer may have together. ``None``: unknown.
            count: Estimates the tokens of an image or a document.
        """
        input_tokens = self._measure_fixed(request) + self._measure(request, count)
        return Usage(input_tokens, answer_tokens(request.max_tokens, window))

    def _measure_fixed(self, request: CompletionRequest) -> int:
        system, tools, form = request.system, request.tools, request.answer_form
        same = system is self._system and tools is self._tools and form is self._form
        if not same:
            self._system, self._tools, self._form = system, tools, form
            self._fixed_tokens = fixed_tokens(system, tools, form)
        return self._fixed_tokens

    def _measure(self, request: CompletionRequest, count: CountAttachment) -> int:
        messages = request.messages
        size = len(messages)
        view = messages if isinstance(messages, MessageView) else None
        # If the oldest were left out since, or something else was, another one stands there.
        grown = (
            0 < self._count <= size
            and messages[0] is self._first
            and messages[self._count - 1] is self._last
            and (self._view is None or view is None or view.stands_in_as(self._view))
        )
        if not grown:
            self._count = self._tokens = 0
        for index in range(self._count, size):
            self._tokens += message_tokens(messages[index], count)
        if size:
            self._first, self._last, self._count = messages[0], messages[size - 1], size
        self._view = view
        return self._tokens


def without_large(result: ToolMessage, tokens: int, count: CountAttachment) -> ToolMessage:
    """Return *result* without attachments larger than *tokens*, with a note about them."""
    kept: list[Attachment] = []  # each has its own
    for one in result.attachments:
        if (taken := count(one)) <= tokens:
            tokens -= taken
            kept.append(one)
    left_out = len(result.attachments) - len(kept)
    if left_out == 0:
        return result
    content = f"{result.content}\n[{left_out} attachments left out: the window has no room]"
    return msgspec.structs.replace(result, content=content, attachments=tuple(kept))

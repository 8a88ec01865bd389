"""Conversations as JSON, to be stored or sent elsewhere."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from agentpool._checks import expect_arguments, expect_whole
from agentpool._errors import UsageError
from agentpool._messages import ChatMessage
from agentpool._surrogates import messages_without_halves


def messages_to_json(messages: Iterable[ChatMessage]) -> str:
    """Return a conversation as JSON: an array of objects, each with its ``role``.

    It has everything, including parts that only providers understand, so that another process can
    continue the conversation. A lone surrogate, which JSON cannot hold, becomes U+FFFD.

    >>> from agentpool.drivers import UserMessage
    >>> messages_to_json([UserMessage("Hi")])
    '[{"role":"user","text":"Hi"}]'
    """
    expect_arguments(messages_to_json, locals())
    told = tuple(messages)
    for message in told:
        expect_whole(message)
    try:
        return msgspec.json.encode(told).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(messages_without_halves(told)).decode()


def messages_from_json(text: str | bytes) -> tuple[ChatMessage, ...]:
    """Read a conversation that ``messages_to_json`` wrote.

    >>> messages_from_json('[{"role":"user","text":"Hi"}]')
    (UserMessage(text='Hi'),)

    Raises:
        UsageError: If *text* is not such a conversation. Says where.
    """
    expect_arguments(messages_from_json, locals())
    try:
        return msgspec.json.decode(text, type=tuple[ChatMessage, ...])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        msg = f"the text is not a conversation ({exc}); write it with messages_to_json"
        raise UsageError(msg) from exc

r"""Replaces lone surrogates (halves of characters) in texts and JSON.

A ``str`` can hold half of a character such as an emoji, if another program cut it in two. UTF-8
cannot. Two halves that belong together become the character; any other half becomes U+FFFD. The
same is done to escaped halves in JSON, which models write: no JSON reader takes a half alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final, assert_never

import msgspec

from agentpool._messages import (
    AssistantMessage,
    ChatMessage,
    Completion,
    CompletionRequest,
    ProviderPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)

_ESCAPE: Final = (
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
"""An escape. Escapes are matched one at a time from the left. So an escaped backslash is not taken
for the beginning of the next escape, and a text is searched only once."""


@cache
def _half() -> re.Pattern[str]:
    return re.compile(r"[\ud800-\udfff]")


@cache
def _escape() -> re.Pattern[str]:
    return re.compile(_ESCAPE, re.DOTALL)


def without_halves(text: str) -> str:
    r"""Return *text* with each lone surrogate replaced.

    >>> without_halves("\ud83d\ude00 or \ud83d")
    '😀 or �'
    """
    if text.isascii() or not _half().search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def escapes_without_halves(json_text: str) -> str:
    r"""Return *json_text* with each escape of a lone surrogate replaced by that of U+FFFD.

    >>> print(escapes_without_halves(r'["\ud83d\ude00", "\ud83d", "C:\\ud83d"]'))
    ["\ud83d\ude00", "\ufffd", "C:\\ud83d"]
    """
    if "\\ud" not in json_text and "\\uD" not in json_text:
        return json_text
    return _escape().sub(_without_half, json_text)


def _without_half(escape: re.Match[str]) -> str:
    return escape[0] if escape["half"] is None else r"\ufffd"


def whole_json(value: object, enc_hook: Callable[[object], object] | None = None) -> bytes:
    r"""Return *value* as JSON, with U+FFFD for each lone surrogate in its texts.

    >>> whole_json(["\ud83d\ude00", "\ud83d"]).decode()
    '["\\ud83d\\ude00","\\ufffd"]'
    """
    try:
        return msgspec.json.encode(value, enc_hook=enc_hook)
    except UnicodeEncodeError:
        import json  # noqa: PLC0415  # rarely needed, and slow to import

        plain = msgspec.to_builtins(value, enc_hook=enc_hook, str_keys=True)
        return escapes_without_halves(json.dumps(plain, separators=(",", ":"))).encode()


def answer_without_halves(answer: Completion) -> Completion:
    """Return *answer* without lone surrogates."""
    return msgspec.structs.replace(
        answer,
        text=without_halves(answer.text),
        tool_calls=tuple(map(_call_without, answer.tool_calls)),
        parts=tuple(map(_part_without, answer.parts)),
    )


def messages_without_halves(messages: Iterable[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return *messages* without lone surrogates."""
    return tuple(map(_without, messages))


def request_without_halves(request: CompletionRequest) -> CompletionRequest:
    """Return *request* without lone surrogates."""
    messages = messages_without_halves(request.messages)
    return msgspec.structs.replace(
        request, messages=messages, system=without_halves(request.system)
    )


def _without(message: ChatMessage) -> ChatMessage:
    replace = msgspec.structs.replace
    match message:
        case UserMessage():
            return replace(message, text=without_halves(message.text))
        case ToolMessage():
            return replace(
                message,
                call_id=without_halves(message.call_id),
                name=without_halves(message.name),
                content=without_halves(message.content),
            )
        case AssistantMessage():
            return AssistantMessage(
                without_halves(message.text),
                tuple(map(_call_without, message.tool_calls)),
                tuple(map(_part_without, message.parts)),
            )
        case _:
            assert_never(message)


def _call_without(call: ToolCall) -> ToolCall:
    return ToolCall(*map(without_halves, (call.call_id, call.name, call.arguments)))


def _part_without(part: ProviderPart) -> ProviderPart:
    data, text = without_halves(part.data), without_halves(part.text)
    return msgspec.structs.replace(part, data=data, text=text)

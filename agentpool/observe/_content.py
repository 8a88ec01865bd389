"""Shortens the texts in events, or leaves them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeAlias, TypeVar, assert_never, final

import attrs
import msgspec

import agentpool._events as events
from agentpool._errors import AgentCancelledError, DeadlockError, LimitExceededError, RecordedError
from agentpool._messages import AssistantMessage, ChatMessage, ToolCall, ToolMessage, UserMessage

Content: TypeAlias = Literal["full", "cut", "none"]
"""How much of each text is kept."""

CUT_CHARACTERS: Final = 400
"""The characters kept of each text with ``cut``."""

_OUR_WORDS: Final = (AgentCancelledError, DeadlockError, LimitExceededError)
"""Errors whose texts never quote a message."""

T = TypeVar("T", bound=msgspec.Struct)


def reduced(event: events.Event, content: Content, clean: Callable[[str], str]) -> events.Event:
    """Return *event* with only the text that *content* allows.

    Keys are removed before texts are cut, since half a key would not be found.

    Names, numbers, types of errors and the reasons why agents ended stay. With ``none``, the texts
    of errors are removed too, since a provider's error may quote the question.
    """
    if content == "full":
        return event
    return _Cutter(CUT_CHARACTERS if content == "cut" else 0, clean).event(event)


def reduced_text(text: str, content: Content, clean: Callable[[str], str]) -> str:
    """Return the part of *text* that *content* allows."""
    if content == "full":
        return text
    return _Cutter(CUT_CHARACTERS if content == "cut" else 0, clean).text(text)


@final
@attrs.frozen
class _Cutter:
    limit: int
    clean: Callable[[str], str]

    def event(self, event: events.Event) -> events.Event:  # noqa: PLR0911  # one for each kind
        """Return *event* with shortened texts."""
        match event:
            case events.AgentSpawned():
                return self.cut(event, "query", "system_prompt")
            case events.TextDelta() | events.ThoughtDelta() | events.AgentWarned():
                return self.cut(event, "text")
            case events.MessagesAdded():
                messages = tuple(self.message(message) for message in event.messages)
                return msgspec.structs.replace(event, messages=messages)
            case events.ToolStarted() | events.ApprovalAsked():
                return msgspec.structs.replace(event, call=self.call(event.call))
            case events.ApprovalGiven():
                call = self.call(event.call)
                return self.cut(msgspec.structs.replace(event, call=call), "reason")
            case events.ToolFinished():
                call = self.call(event.call)
                return self.cut(msgspec.structs.replace(event, call=call), "content", "traceback")
            case events.RequestFailed() | events.RequestRetried() | events.FellBack():
                return self.cut(event, "error")
            case events.MessageSent() | events.MessageDropped():
                message = self.cut(event.message, "content")
                return msgspec.structs.replace(event, message=message)
            case events.AgentFinished():
                return self.finished(event)
            case _:
                return event

    def finished(self, event: events.AgentFinished) -> events.AgentFinished:
        outcome = self.cut(event.outcome, "text")
        messages = tuple(self.message(message) for message in outcome.messages)
        error = outcome.error
        if error is not None and not self.limit and not isinstance(error, _OUR_WORDS):
            error = RecordedError("", kind=type(error).__name__)
        outcome = msgspec.structs.replace(outcome, messages=messages, value=None, error=error)
        return msgspec.structs.replace(event, outcome=outcome)

    def message(self, message: ChatMessage) -> ChatMessage:
        match message:
            case UserMessage():
                # What is attached cannot be cut.
                return self.cut(msgspec.structs.replace(message, attachments=()), "text")
            case AssistantMessage():
                calls = tuple(self.call(call) for call in message.tool_calls)
                # What only a provider understands cannot be cut.
                changed = msgspec.structs.replace(message, tool_calls=calls, parts=())
                return self.cut(changed, "text")
            case ToolMessage():
                return self.cut(msgspec.structs.replace(message, attachments=()), "content")
            case _:
                assert_never(message)

    def call(self, call: ToolCall) -> ToolCall:
        return self.cut(call, "arguments")

    def text(self, text: str) -> str:
        """Return *text*, shortened."""
        text = self.clean(text) if self.limit else ""
        left_out = len(text) - self.limit
        return f"{text[: self.limit]}… [{left_out} more]" if left_out > 0 else text

    def cut(self, value: T, *names: str) -> T:
        """Return *value* with its fields *names* shortened."""
        changed: dict[str, str] = {}
        for name in names:
            text: str = getattr(value, name)
            if len(text) > self.limit:
                changed[name] = self.text(text)
        return msgspec.structs.replace(value, **changed) if changed else value

"""Formats events as lines of a trace, in the thread that writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias, final, get_args

import msgspec

from agentpool._budget.statistics import PoolStatistics
from agentpool._events import (
    AgentFinished,
    AgentSpawned,
    Event,
    EventsMissed,
    MessagesAdded,
    PoolInfo,
    TextDelta,
    ThoughtDelta,
)
from agentpool._messages import AgentId, AssistantMessage
from agentpool._outcome import AgentStatus
from agentpool._secrets import given_secrets
from agentpool.observe._codec import Line, lines_to_json, unicode_text
from agentpool.observe._content import Content, reduced, reduced_text
from agentpool.observe._redact import Redactor
from agentpool.observe._shared_history import SharedHistory
from agentpool.observe._trace import Prompt, TraceEnd, TraceHeader, format_words

_Piece: TypeAlias = TextDelta | ThoughtDelta

_PLAIN: Final = frozenset(get_args(Event)) - {
    AgentFinished,
    AgentSpawned,
    EventsMissed,
    MessagesAdded,
    TextDelta,
    ThoughtDelta,
}
"""Events that are written unchanged."""


@final
class TraceLines:
    """Formats the lines of a trace in the writing thread."""

    __slots__ = (
        "_command", "_content", "_given", "_prompts", "_ready", "_redactor", "_secrets", "_shared",
        "_texts", "_told", "begun",
    )  # fmt: skip

    def __init__(self, secrets: Iterable[str], content: Content, command: str = "") -> None:
        """Start without lines.

        Raises:
            UsageError: If a secret is too short.
        """
        self._secrets = tuple(secrets)
        self._given: tuple[str, ...] = ()
        self._redactor = Redactor.of(self._secrets)
        self._content: Content = content
        self._command = command
        self._ready: list[Line] = []
        self._prompts: dict[str, int] = {}
        self._shared = SharedHistory()
        self._told: dict[AgentId, int] = {}
        """How many messages of each agent are in the file."""
        self._texts: dict[AgentId, dict[type[_Piece], _Piece]] = {}
        """Texts and thoughts of answers that are not in the file yet. The answer may change from
        one to the other in the middle of a key, so both are kept."""
        self.begun = False

    def begin(self, info: PoolInfo) -> None:
        """Add the first line."""
        self.begun = True
        header = TraceHeader(
            run_id=info.run_id,
            pool=info.name,
            opened_at=info.opened_at,
            max_concurrent=info.max_concurrent,
            content=self._content,
            command=self._command,
        )
        self._ready.append(header)

    def add(self, events: Sequence[Event]) -> None:
        """Add the lines of *events*."""
        is_whole, texts = self._content == "full", self._texts
        for event in events:
            if is_whole and type(event) in _PLAIN and event.agent_id not in texts:
                # Most events, and the thread takes its time from the pool's.
                self._ready.append(event)
            else:
                self._add(event)

    def _add(self, event: Event) -> None:
        if isinstance(event, TextDelta | ThoughtDelta):
            texts = self._texts.setdefault(event.agent_id, {})
            for kind in [one for one in texts if one is not type(event)]:
                self._put_safe(texts, kind)
            if (text := texts.get(type(event))) is not None:
                event = msgspec.structs.replace(event, text=text.text + event.text)
            texts[type(event)] = event
            return
        for text in self._texts.pop(event.agent_id, {}).values():
            self._put(text)
        if isinstance(event, AgentSpawned):
            event = self._spawned(event)
        elif isinstance(event, MessagesAdded):
            self._told[event.agent_id] = event.place + len(event.messages)
            event = self._shared.shortened(event)
        elif isinstance(event, EventsMissed):
            self._shared = SharedHistory()  # messages may be among them
        elif isinstance(event, AgentFinished):
            event = self._finished(event)
        self._put(event)

    def _spawned(self, event: AgentSpawned) -> AgentSpawned:
        prompt = event.system_prompt
        if not prompt:
            return event
        if prompt not in self._prompts:
            self._prompts[prompt] = number = len(self._prompts) + 1
            text = reduced_text(prompt, self._content, self._redactor.clean_text)
            self._ready.append(Prompt(number, unicode_text(text)))
        return msgspec.structs.replace(event, system_prompt="", prompt_id=self._prompts[prompt])

    def _finished(self, event: AgentFinished) -> AgentFinished:
        outcome = event.outcome
        self._shared.keep(event.agent_id, outcome.messages)
        told = self._told.pop(event.agent_id, 0)
        text, last = outcome.text, outcome.messages[-1] if outcome.messages else None
        if outcome.status is AgentStatus.COMPLETED and isinstance(last, AssistantMessage):
            text = "" if text == last.text else text
        outcome = msgspec.structs.replace(outcome, messages=outcome.messages[told:], text=text)
        return msgspec.structs.replace(event, outcome=outcome)

    def _put(self, event: Event) -> None:
        if self._content != "full":
            event = reduced(event, self._content, self._redactor.clean_text)
        self._ready.append(event)

    def end(self, statistics: PoolStatistics) -> None:
        """Add the last line."""
        for texts in self._texts.values():
            for text in texts.values():
                self._put(text)
        self._texts.clear()
        self._ready.append(TraceEnd(statistics=statistics))

    def take(self) -> bytes:
        """Return the finished lines, with API keys removed."""
        self._look_for_given()
        self._take_texts()
        ready, self._ready = self._ready, []
        return self._redactor.clean_lines(lines_to_json(ready), format_words())

    def _look_for_given(self) -> None:
        """Also look for API keys that drivers and servers were given since the last call."""
        given = given_secrets()
        if given != self._given:
            self._given = given
            self._redactor = Redactor.of({*self._secrets, *given})

    def _take_texts(self) -> None:
        """Turn the pieces so far into lines, but hold back what may be the beginning of a key."""
        for agent_id, texts in tuple(self._texts.items()):
            for kind in tuple(texts):
                self._put_safe(texts, kind)
            if not texts:
                del self._texts[agent_id]

    def _put_safe(self, texts: dict[type[_Piece], _Piece], kind: type[_Piece]) -> None:
        """Turn one of *texts* into a line, but hold back what may be the beginning of a key."""
        event = texts.pop(kind)
        cut = len(event.text) - self._redactor.open_end(event.text)
        if cut:
            self._put(msgspec.structs.replace(event, text=event.text[:cut]))
        if cut < len(event.text):
            texts[kind] = msgspec.structs.replace(event, text=event.text[cut:])

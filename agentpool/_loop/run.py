"""The state of one run: its input, the effects it asks for, and its result so far.

``loop`` has the rules; this module has the values that they use. A run asks for things by effects.
An effect is a value that says what is wanted; the code that performs it writes the result into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias, final

import msgspec

from agentpool._attachments import Attachment, CountAttachment, highest_tokens
from agentpool._base import Live
from agentpool._loop.conversation import Conversation
from agentpool._loop.guard import LoopGuard, Stop, Warn
from agentpool._loop.joined_pieces import CONTINUE, join_pieces
from agentpool._loop.output import Output
from agentpool._loop.thoughts import without_thoughts
from agentpool._loop.window import Cut
from agentpool._manifest.context import ContextStrategy
from agentpool._manifest.manifest import AgentManifest
from agentpool._messages import (
    AgentMessage,
    AssistantMessage,
    ChatMessage,
    Completion,
    CompletionRequest,
    ProviderPart,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
    answer_tokens,
)
from agentpool._outcome import StopReason
from agentpool._served_call import Loss

NO_ANSWER = Completion()
"""The last piece of an answer that broke off. Nothing is known about that piece."""


@final
class Recall(msgspec.Struct, eq=False, gc=False):
    """Effect: search the memory."""

    query: str
    limit: int
    fragments: Sequence[str] = ()
    """Result: what was found, best first."""


@final
class Receive(msgspec.Struct, eq=False, gc=False):
    """Effect: take the messages in the inbox without waiting. Reused in each turn."""

    messages: Sequence[AgentMessage] = ()
    """Result: the messages, in the order of their arrival."""
    interrupted: bool = False
    """Result: whether the run is asked to stop here. This takes precedence over any message."""


@final
class Complete(msgspec.Struct, eq=False, gc=False):
    """Effect: ask the model."""

    request: CompletionRequest
    completion: Completion | None = None
    """Result: the answer. ``None``: a budget does not allow the request, and the run's
    ``exhausted`` says which."""
    reserved: Loss | None = None
    """Result: what budgets are charged for the part of its usage that is unknown. ``None``: all of
    it is known, or there is no journal for it."""


NO_CALLS: Final[Mapping[int, ToolCall]] = {}
NO_TIMES: Final[Mapping[int, float]] = {}
"""An empty dict that most effects share: a separate one in each would cost a fiftieth of a turn."""


@final
class RunTools(msgspec.Struct, eq=False):
    """Effect: run the calls that have no result yet, side by side if there are several."""

    calls: Sequence[ToolCall]
    results: list[ToolMessage | None]
    """Result: one for each call, in their order; refused calls have their results already. Each is
    written when its call ends, so a run that is cancelled before the last one keeps the others."""
    begun: tuple[int, ...] = ()
    """The places of calls whose tool was started, so that they may have been done."""
    changed: Mapping[int, ToolCall] = NO_CALLS
    """Approved calls, in the form in which they run, by their places."""
    began: Mapping[int, float] = NO_TIMES
    """When the observed calls began, by their places."""


@final
class Remember(msgspec.Struct, eq=False, gc=False):
    """Effect: store this in the memory."""

    content: str


NOT_RUN: Final = "not run"
"""The result of a call that never began."""

UNSURE: Final = "it may or may not have been done"
"""Added to the result of a call that was cancelled while its tool ran."""

BEGUN: Final = f"was begun; {UNSURE}"
"""The result of a call that was broken off: its tool may have paid, sent or written something."""


@final
class Summarize(msgspec.Struct, eq=False, gc=False):
    """Effect: ask the model to summarize the messages that are left out of the window."""

    request: CompletionRequest
    most_tokens: int
    """The limit for the summary."""
    text: str = ""
    """Result: the summary. Empty: there is none."""
    failure: str = ""
    """Result: why there is no summary. If this is set from the start, the model is not asked."""
    completion: Completion | None = None
    """Result: the answer, with its usage. ``None``: there was no answer."""
    reserved: Loss | None = None
    """Result: as of a ``Complete``."""


@final
class LeftOut(msgspec.Struct, frozen=True, gc=False):
    """Effect: report what was left out of the window. It has no result."""

    strategy: ContextStrategy
    cut: Cut
    summary: str
    """The summary that replaces what was left out from now on. Empty: there is no summary."""
    failure: str
    """Why there is no summary. Empty: there is a summary, or none was wanted."""


Effect: TypeAlias = Recall | Receive | Complete | RunTools | Remember | Summarize | LeftOut | Warn
"""Everything that a run can ask for. ``Warn`` has no result: it is only reported."""


def refused(call: ToolCall, text: str) -> ToolMessage:
    """Make the result of a call that did not run, with the reason for the model."""
    return ToolMessage(call.call_id, call.name, text, is_error=True)


@final
class Run(Live, gc=False):
    """One run: its input, and its state so far."""

    manifest: AgentManifest
    query: str
    history: Sequence[ChatMessage]
    tools: tuple[ToolDefinition, ...]
    """The tools that the model sees."""
    refuse: Callable[[str], str | None]
    """Returns why the tool of that name may not run. ``None``: it may run."""
    room_tokens: int | None
    """The part of the window for the conversation. ``None``: the window's size is unknown."""
    guard: LoopGuard
    has_memory: bool = True
    """Whether it recalls and remembers."""
    output: Output | None = None
    """The required type of the answer. ``None``: any text."""
    repairs: int = 0
    """How often it was asked for another answer."""
    misfits: int = 0
    """The answers that were not of the output's type."""
    misfit: str = ""
    """The beginning of the last answer of a wrong type, and what is wrong with it."""
    value: object = None
    """The answer as a value of the output's type."""
    conversation: Conversation | None = None
    max_output_tokens: int | None = None
    """The most tokens that the model can write in one answer. ``None``: unknown."""
    raised_tokens: int | None = None
    """The raised ``max_tokens``, for an answer that had no room for words."""
    has_thought: bool = False
    """Whether the text of the last answer began with thoughts."""
    was_empty: bool = False
    """Whether the last answer said nothing at all."""
    partial: str = ""
    """The answer so far, cut off by ``max_tokens``. It is added to the conversation when it is
    complete."""
    partial_parts: tuple[ProviderPart, ...] = ()
    """The parts that its provider wants back with that answer."""
    arriving: list[str] | tuple[()] = ()
    """The pieces that have arrived of the current completion. ``arrive`` adds a piece."""
    last_text: str = ""
    """The text that the model wrote with its last tool calls."""
    acting: RunTools | None = None
    """The calls that are running now."""
    stop_reason: StopReason | None = None
    stop: Stop | None = None
    """The reason for stopping the run. ``None``: it goes on, or the model ended it."""
    over_budget: bool = False
    exhausted: Stop | None = None
    """Set when a budget, or a child, leaves nothing for the run to use."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents that belong to the query."""
    attachment_tokens: CountAttachment = highest_tokens
    """Estimates the tokens of an image or a document."""
    passed_shared: bool = False
    """Whether the last answer passed a limit of a budget that others share."""

    def arrive(self, piece: str) -> None:
        """Add *piece* to the completion that arrives right now."""
        if self.arriving:
            self.arriving.append(piece)
        else:
            self.arriving = [piece]

    @property
    def arrived_text(self) -> str:
        """The part of the answer that has arrived, without the thoughts before it."""
        return without_thoughts("".join(self.arriving))

    @property
    def text(self) -> str:
        """The answer so far, or else the last text of the model."""
        if not (self.partial or self.arriving):
            return self.last_text
        return join_pieces(self.partial, self.arrived_text) or self.last_text

    @property
    def pending(self) -> tuple[ChatMessage, ...]:
        """The answer that was cut off and the request for its rest. Use this only after a cut."""
        return (AssistantMessage(self.partial, (), self.partial_parts), UserMessage(CONTINUE))

    @property
    def output_limit(self) -> int | None:
        """The most tokens of the next answer. ``None``: no limit was set."""
        if self.raised_tokens is None:
            return self.manifest.model.max_tokens
        if self.room_tokens is None:
            return self.raised_tokens
        assert self.conversation is not None  # noqa: S101  # there was an answer
        limit = answer_tokens(self.manifest.model.max_tokens, self.room_tokens)
        # What the conversation does not fill of the window is free for the answer.
        return max(limit, min(self.raised_tokens, limit + self.conversation.spare_tokens()))

    def misfit_words(self) -> str:
        """Return why no answer fitted the output's type. Empty: no answer had a wrong type."""
        if not self.misfits or self.output is None:
            return ""
        count = self.misfits
        name = self.output.form.name
        if count == 1:
            return f"the answer does not fit {name!r}; it {self.misfit}"
        return f"none of {count} answers fits {name!r}; the last one {self.misfit}"

    def end(self, stop: Stop) -> None:
        """End the run because of *stop*."""
        self.stop = stop
        self.stop_reason = stop.reason

    def settle(self, reason: str) -> None:
        """Add the results of the current calls to the conversation, one for each call.

        Args:
            reason: Why calls without a result did not end, for the model.
        """
        batch, self.acting = self.acting, None
        assert batch is not None  # noqa: S101  # there are calls
        conversation = self.conversation
        assert conversation is not None  # noqa: S101  # and so there was a turn
        for result in _settled(batch, reason) if None in batch.results else batch.results:
            assert result is not None  # noqa: S101  # see above
            conversation.append(result)

    def settled_messages(self, reason: str) -> tuple[ChatMessage, ...]:
        """Return the conversation with a result for every call, and the text that arrived.

        Args:
            reason: Why calls without a result did not end, for the model.
        """
        if self.conversation is None:
            return (*self.history, UserMessage(self.query, self.attachments))
        if self.acting is not None:
            self.settle(reason)
        if self.partial or self.arriving:
            self.say(join_pieces(self.partial, self.arrived_text))
            self.arriving = ()
        return self.conversation.copy()

    def say(self, text: str, completion: Completion = NO_ANSWER) -> None:
        """Add an answer to the conversation, unless it is empty.

        Args:
            text: The whole text, including pieces that were cut off before.
            completion: Its last piece, with the calls and the parts that its provider wants back.
        """
        assert self.conversation is not None  # noqa: S101  # there was a turn
        parts: tuple[ProviderPart, ...] = ()
        if self.partial_parts or completion.parts:
            parts = self._parts_with(text, completion)
            self.partial_parts = ()
        if self.partial:
            self.partial = ""
        if text:
            self.last_text = text
        elif not completion.tool_calls:
            return
        self.conversation.append(AssistantMessage(text, completion.tool_calls, parts))

    def keep_piece(self, completion: Completion) -> None:
        """Add a truncated piece to the answer so far."""
        text = join_pieces(self.partial, completion.text)
        self.partial_parts = self._parts_with(text, completion)
        self.partial = text

    def _parts_with(self, text: str, completion: Completion) -> tuple[ProviderPart, ...]:
        """Return the parts of the answer *text*, whose last piece is *completion*."""
        parts = completion.parts
        if not parts:
            return self.partial_parts
        if completion.finish_reason.is_cut:
            parts = _finished(parts, completion)
        before = len(text) - len(completion.text)
        return (*self.partial_parts, *(_moved(parts, before) if before else parts))


def _settled(batch: RunTools, reason: str) -> Iterator[ToolMessage]:
    for index, result in enumerate(batch.results):
        state = BEGUN if index in batch.begun else NOT_RUN
        yield result or refused(batch.calls[index], f"{state}: {reason}")


def _finished(parts: tuple[ProviderPart, ...], completion: Completion) -> tuple[ProviderPart, ...]:
    """Return *parts* without a last part that was cut off, which a provider would refuse."""
    chars, calls = len(completion.text), len(completion.tool_calls)
    return tuple(part for part in parts if part.text_at < chars or part.call_at < calls)


def _moved(parts: tuple[ProviderPart, ...], chars: int) -> tuple[ProviderPart, ...]:
    """Renumber *parts* of the last piece of an answer as parts of the whole answer."""
    return tuple(
        msgspec.structs.replace(part, text_at=max(part.text_at + chars, 0)) for part in parts
    )

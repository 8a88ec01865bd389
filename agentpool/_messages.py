"""The values that all parts share: messages to models and between agents.

All values are frozen. A text may come with images and documents; audio is not supported.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, final

import msgspec

from agentpool._attachments import Attachment
from agentpool._checks import CheckedStruct, expect_arguments

Json: TypeAlias = bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"] | None
"""A JSON value."""

AgentId: TypeAlias = int
"""An agent's number in its pool: 1, 2, 3, …, in spawn order, never reused."""

OWNER_ID: AgentId = 0
"""The sender id of the pool's owner: the code that opened the pool."""

NOBODY: AgentId = -1
"""The parent of an absent agent that nobody can spawn again. No agent has this number."""


@final
class AgentMessage(msgspec.Struct, frozen=True, gc=False):
    """A message from one agent to another. Only the router sets the sender."""

    sender: AgentId
    """The id of the sender. 0 is the pool's owner."""
    recipient: AgentId
    """The id of the recipient. 0 is the pool's owner."""
    content: str
    """The text."""
    message_id: int
    """The router's number of this message: 1, 2, 3, …, across the whole pool."""
    reply_to: int | None = None
    """The ``message_id`` of the message that this one answers. ``None``: it is not an answer."""


@final
class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message that was accepted and will never be received."""

    message: AgentMessage
    """The message."""
    reason: str
    """Why it will never be received."""


@final
class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A model's request to run a tool."""

    call_id: str
    """The model's name for this call; the result of the call carries the same name."""
    name: str
    """The tool's name, as the model wrote it. There may be no such tool."""
    arguments: str
    """JSON text, exactly as the model wrote it: it may be invalid."""


@final
class UserMessage(
    msgspec.Struct,
    frozen=True,
    gc=False,
    tag_field="role",
    tag="user",
    omit_defaults=True,
    repr_omit_defaults=True,
):
    """Text for the model: a query, a message from another agent, or data."""

    text: str
    """The text."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents that belong to the text."""


@final
class ProviderPart(msgspec.Struct, frozen=True, gc=False):
    """Part of an answer that only its provider understands, such as a signed thought.

    It is sent back unchanged, but only to the same model at the same provider. It is never a part
    of the answer's text.
    """

    provider: str
    """The host that the part came from, with its port if that is unusual."""
    model: str
    """The model that was asked for."""
    kind: str
    """The kind in the words of the wire: ``thinking``, ``reasoning_content``, …"""
    data: str
    """JSON text, as it came."""
    text: str = ""
    """The readable part. Empty: there is none."""
    text_at: int = 0
    """How many characters of the answer's text come before this part."""
    call_at: int = 0
    """The number of tool calls before this part. For a part that belongs to a call: the place of
    that call."""


@final
class AssistantMessage(msgspec.Struct, frozen=True, gc=False, tag_field="role", tag="assistant"):
    """A model's answer in one turn."""

    text: str
    """The text. Empty when it only called tools."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls that came with it, in the model's order."""
    parts: tuple[ProviderPart, ...] = ()
    """The parts that its provider wants back, in the order of their arrival."""


@final
class ToolMessage(msgspec.Struct, frozen=True, gc=False, tag_field="role", tag="tool"):
    """The result of one tool call."""

    call_id: str
    """The ``call_id`` of the call that it answers."""
    name: str
    """The tool's name."""
    content: str
    """The result, or the text of the error."""
    is_error: bool = False
    """Whether the call failed or was refused."""
    attachments: tuple[Attachment, ...] = ()
    """Images and documents that the tool returned with the text."""


ChatMessage: TypeAlias = UserMessage | AssistantMessage | ToolMessage
"""One entry of a conversation with a model. The system prompt is not part of it."""


@final
class ToolDefinition(CheckedStruct, frozen=True):
    """A tool as the model sees it."""

    name: str
    """Letters, digits, ``_`` and ``-``; at most 64 of them."""
    description: str
    """The description of the tool, for the model."""
    input_schema: Mapping[str, object]
    """The JSON Schema of the arguments; its type is ``object``."""


@final
class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens that were spent. Can be added: ``usage + usage``."""

    input_tokens: int = 0
    """Tokens sent to the model, cached ones included."""
    output_tokens: int = 0
    """Tokens that it wrote, reasoning included."""
    cached_tokens: int = 0
    """The part of ``input_tokens`` that the provider took from its cache."""
    reasoning_tokens: int = 0
    """The part of ``output_tokens`` that the model kept to itself."""
    cache_write_tokens: int = 0
    """The part of ``input_tokens`` that was written to the provider's cache."""
    cache_write_hour_tokens: int = 0
    """The part of ``cache_write_tokens`` that the provider keeps for an hour."""

    @property
    def total_tokens(self) -> int:
        """Tokens in plus tokens out."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: Usage) -> Usage:
        """Add field by field."""
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_write_hour_tokens + other.cache_write_hour_tokens,
        )


NO_USAGE = Usage()
"""Nothing spent."""


class FinishReason(enum.Enum):
    """Why the model stopped writing."""

    END_TURN = "end_turn"
    """It finished."""
    TOOL_USE = "tool_use"
    """It waits for the results of its tool calls."""
    MAX_TOKENS = "max_tokens"
    """It reached ``max_tokens``: the text is cut."""
    STOP_SEQUENCE = "stop_sequence"
    """It wrote a stop sequence."""
    WINDOW_FULL = "window_full"
    """Its context window was full: the text is cut, and a higher limit would not help."""

    @property
    def is_cut(self) -> bool:
        """Whether the answer is incomplete."""
        return self in CUT


CUT: Final = (FinishReason.MAX_TOKENS, FinishReason.WINDOW_FULL)
"""The endings of an incomplete answer. Not a set, which would hash each member in Python."""


@final
class AnswerForm(CheckedStruct, frozen=True):
    """The required form of a text answer: only JSON that fits a schema."""

    name: str
    """Letters, digits, ``_`` and ``-``; at most 64 of them."""
    schema: Mapping[str, object]
    """The JSON Schema of the answer; its type is ``object``."""


@final
class CompletionRequest(msgspec.Struct, frozen=True, gc=False):
    """One request to a model."""

    messages: Sequence[ChatMessage]
    """The conversation, oldest first. A live run shares it: read it, do not keep it."""
    system: str = ""
    """The system prompt. Empty: no system prompt."""
    tools: tuple[ToolDefinition, ...] = ()
    """The tools that the model may call, in a stable order."""
    max_tokens: int | None = None
    """The most tokens that the model may write, including thoughts. ``None``: as many as the model
    can."""
    temperature: float | None = None
    """0.0 is the likeliest word each time; 2.0 is the upper end. ``None``: not sent."""
    model: str | None = None
    """The provider's name of the model. ``None``: the driver's own."""
    answer_form: AnswerForm | None = None
    """The required form of the answer, unless it calls tools. ``None``: any. A driver that cannot
    enforce it may ignore it, since the answer is checked later."""
    top_p: float | None = None
    """The share of likely words to choose from. ``None``: not sent."""
    stop: tuple[str, ...] = ()
    """Texts at which the model stops writing."""
    seed: int | None = None
    """The seed for random choices. ``None``: none is sent."""
    reasoning_effort: str | None = None
    """How much to think, in the provider's words. ``None``: not sent."""
    verbosity: str | None = None
    """How much to write, in the provider's words. ``None``: not sent."""


@final
class Completion(msgspec.Struct, frozen=True, gc=False):
    """A model's answer to one request."""

    text: str = ""
    """The text. Empty when it only called tools."""
    tool_calls: tuple[ToolCall, ...] = ()
    """The calls, in the model's order."""
    finish_reason: FinishReason = FinishReason.END_TURN
    """Why it stopped."""
    usage: Usage | None = None
    """Tokens spent. ``None``: the provider did not say."""
    model: str | None = None
    """The model that answered. ``None``: the provider did not say."""
    cost_usd: float | None = None
    """US dollars. ``None``: the driver computes the price from the usage."""
    parts: tuple[ProviderPart, ...] = ()
    """The parts that its provider wants back, in the order of their arrival."""


ANSWER_TOKENS: Final = 16_384
"""The expected size of an answer without a limit: a long one, including thoughts."""


def answer_tokens(max_tokens: int | None, window: int | None = None) -> int:
    """Return how many tokens of the window to reserve for an answer.

    >>> answer_tokens(500), answer_tokens(None), answer_tokens(None, 8192)
    (500, 16384, 2048)

    Args:
        max_tokens: The limit of the answer. ``None``: no limit is sent.
        window: Tokens of request and answer together. ``None``: unknown.
    """
    if max_tokens is not None:
        return max_tokens
    # A quarter: the question, the tools and what they return are most of a conversation.
    return ANSWER_TOKENS if window is None else min(ANSWER_TOKENS, window // 4)


def estimate_tokens(text: str) -> int:
    """Estimate how many tokens *text* takes: its UTF-8 bytes divided by 2.5, rounded up.

    The estimate is high on purpose (by half for English), because a provider refuses a request that
    is one token too long. On samples of English, JSON, Chinese and code it was never below the
    o200k count (2026-11).
    """
    if type(text) is not str:
        expect_arguments(estimate_tokens, locals())
    # A lone surrogate is not text, but a file's name may have one: it is counted, not refused.
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return (size * 2 + 4) // 5

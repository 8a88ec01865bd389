"""Knows the reasons why models stop, in the words of all providers, and makes errors for bad ends.

Gateways forward the words of the provider behind them, so every wire knows all words. An unknown
word is an error: half an answer must not pass for a whole one.

Source: https://platform.openai.com/docs/api-reference/chat-streaming,
https://platform.claude.com/docs/en/api/handling-stop-reasons,
https://api-docs.deepseek.com/api/create-chat-completion,
https://openrouter.ai/docs/api-reference/overview,
https://ai.google.dev/api/generate-content#FinishReason,
https://docs.cohere.com/reference/chat, the Converse API of
https://docs.aws.amazon.com/bedrock, and text-generation-inference's own types (2026-11).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, assert_never

from agentpool._errors import (
    BadRequestError,
    DriverError,
    FailedAttemptError,
    OverloadedError,
    ProtocolError,
)
from agentpool._messages import FinishReason


class Ending(enum.Enum):
    """Why an answer is incomplete."""

    WITHHELD = "withheld"
    """The provider withheld the rest."""
    BROKEN = "broken"
    """The provider failed."""
    FAILED = "failed"
    """The model failed to write what it wanted to."""
    PAUSED = "paused"
    """The provider, which uses its own tools, waits to be asked to go on."""


_WORDS: Final[Mapping[FinishReason | Ending, tuple[str, ...]]] = {
    FinishReason.END_TURN: ("stop", "eos", "eos_token", "end_turn", "complete", "completed"),
    FinishReason.STOP_SEQUENCE: ("stop_sequence",),
    FinishReason.MAX_TOKENS: (
        *("length", "max_tokens", "max_output_tokens", "model_length", "max_length"),
        "incomplete",  # for no stated reason
    ),
    FinishReason.WINDOW_FULL: ("model_context_window_exceeded",),
    FinishReason.TOOL_USE: (
        *("tool_calls", "tool_call", "tool_use", "function_call", "function_calls"),
    ),
    Ending.WITHHELD: (
        *("content_filter", "content_filter: safety", "content_filtered", "safety", "refusal"),
        *("recitation", "blocklist", "prohibited_content", "spii", "sensitive", "image_safety"),
        *("guardrail_intervened", "error_toxic", "language"),
    ),
    Ending.BROKEN: (
        *("error", "network_error", "abort", "insufficient_system_resource", "failed"),
        *("cancelled", "user_cancel", "error_limit", "timeout", "time_limit", "other"),
    ),
    Ending.FAILED: (
        *("malformed_function_call", "unexpected_tool_call", "malformed_tool_use"),
        *("too_many_tool_calls", "malformed_model_output", "malformed_response"),
    ),
    Ending.PAUSED: ("pause_turn", "compaction"),
}

ENDINGS: Final[Mapping[str, FinishReason | Ending]] = {
    word: ending for ending, words in _WORDS.items() for word in words
}
"""The meaning of each word; words are in lower case."""

NO_ENDING: Final = frozenset({"", "null", "none", "finish_reason_unspecified"})
"""The words of servers for an answer that has not ended."""


def bad_end(ending: Ending | None, word: str, so_far: str) -> DriverError:
    """Return the error for an answer that ended with *word*.

    Args:
        ending: The meaning of the word. ``None``: it is unknown.
        word: The word as the provider wrote it.
        so_far: How much of the answer had come, in words.
    """
    match ending:
        case Ending.WITHHELD:
            return BadRequestError(
                f"the provider's filter withheld the answer ({word}); change the request"
            )
        case Ending.BROKEN:
            return OverloadedError(
                f"the provider broke off its answer ({word}), after {so_far}; ask again later"
            )
        case Ending.FAILED:
            return FailedAttemptError(
                f"the model failed to write a tool call ({word}), after {so_far}; ask again"
            )
        case Ending.PAUSED:
            return ProtocolError(
                f"the provider paused its answer ({word}), after {so_far}; do not use its own tools"
            )
        case None:
            return ProtocolError(
                f"the answer ended with {word!r}, which is not a known ending, after {so_far}; "
                "it may lack its end: ask again, or choose another model"
            )
        case _:
            assert_never(ending)

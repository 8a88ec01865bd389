"""Rules of Anthropic's Messages and OpenAI's Responses, besides the common ones."""

from __future__ import annotations

import re
from typing import Final

from agentpool.testing._strict_asked import Fields, StrictAsked, fields, items, text

MOST_MARKS: Final = 4
"""The most cache marks that Anthropic accepts in one request."""

THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})


# --- Messages


def has_version(asked: StrictAsked) -> str | None:
    """Require Anthropic's version: https://platform.claude.com/docs/en/api/versioning (2026-11)."""
    return None if asked.headers.get("anthropic-version") else "anthropic-version: is required"


def has_limit(asked: StrictAsked) -> str | None:
    """Require a limit of the answer, as Anthropic does."""
    limit = asked.body.get("max_tokens")
    return None if isinstance(limit, int) and limit > 0 else "max_tokens: Field required"


def user_first(asked: StrictAsked) -> str | None:
    """Require the user first, and no empty message, as Anthropic does."""
    messages = asked.messages
    if not messages or messages[0].get("role") != "user":
        return "messages: first message must use the user role"
    for index, message in enumerate(messages):
        if not message.get("content"):
            return f"messages.{index}: all messages must have non-empty content"
        for block in items(message.get("content")):
            if block.get("type") == "text" and not text(block.get("text")).strip():
                return f"messages.{index}: text content blocks must contain non-whitespace text"
    return None


def user_last(asked: StrictAsked) -> str | None:
    """Refuse the beginning of an answer, as Claude 4.6 and later do (qwen-code#8039)."""
    if asked.messages[-1].get("role") == "assistant":
        return (
            "This model does not support assistant message prefill. The conversation must end "
            "with a user message."
        )
    return None


def results_next(asked: StrictAsked) -> str | None:
    """Require the results of all calls at the start of the next message, as Anthropic does."""
    waiting: set[str] = set()
    for message in asked.messages:
        blocks = items(message.get("content"))
        if message.get("role") == "assistant":
            waiting = {text(one.get("id")) for one in blocks if one.get("type") == "tool_use"}
            continue
        results = [one for one in blocks if one.get("type") == "tool_result"]
        found = {text(one.get("tool_use_id")) for one in results}
        if found != waiting or len(results) != len(waiting):
            return f"`tool_use` ids were found without `tool_result` blocks: {waiting ^ found}"
        if blocks[: len(results)] != results:
            return "`tool_result` blocks must come first in the message"
        waiting = set()
    return f"`tool_use` ids were found without `tool_result`: {waiting}" if waiting else None


def thoughts_signed(asked: StrictAsked) -> str | None:
    """Refuse foreign signatures, as Anthropic does (hebo-gateway#132, pydantic-ai#7601)."""
    for block in asked.blocks("assistant"):
        if block.get("type") == "thinking" and text(block.get("signature")) not in asked.issued:
            return "Invalid `signature` in `thinking` block"
    return None


def thoughts_first(asked: StrictAsked) -> str | None:
    """Require the thought at the beginning of an answer with open calls, as Anthropic does.

    With a budget for thoughts, this holds for the first answer of the loop, whatever model gave it.
    Without such a budget, the first answer may come from a different model; only the model's own
    answers must come back unchanged.
    """
    is_manual = fields(asked.body.get("thinking")).get("type") == "enabled"
    first: str | None = None
    for message in reversed(asked.messages):
        blocks = items(message.get("content"))
        if message.get("role") == "assistant":
            kinds = [text(one.get("type")) for one in blocks]
            is_bare = "tool_use" in kinds and kinds[0] not in THOUGHTS
            first = kinds[0] if is_bare else None
            if is_bare and any(text(one.get("id")) in asked.issued for one in blocks):
                break
        elif any(one.get("type") != "tool_result" for one in blocks):
            first = first if is_manual else None  # what is before was another turn of the user's
            break
    if first is None:
        return None
    return f"Expected `thinking` or `redacted_thinking`, but found `{first}`"


def few_marks(asked: StrictAsked) -> str | None:
    """Refuse too many cache marks, as Anthropic does (docs/en/build-with-claude/prompt-caching)."""
    marks = str(asked.body).count("'cache_control'")
    if marks > MOST_MARKS:
        return (
            f"A maximum of {MOST_MARKS} blocks with cache_control may be provided. Found {marks}."
        )
    return None


_BEFORE_ADAPTIVE: Final = re.compile(r"claude-(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:-\d{8})?$")


def adaptive_alone(asked: StrictAsked) -> str | None:
    """Refuse thinking other than ``adaptive``, as Claude Opus 4.7 and later do.

    Models before 4.6 refuse ``adaptive`` instead. Of these models, only Opus 4.5 accepts an effort
    (bugbug#5719, pensarai/apex#890, seen 2026-11).
    """
    kind, model = fields(asked.body.get("thinking")).get("type"), text(asked.body.get("model"))
    if _BEFORE_ADAPTIVE.search(model):
        if kind == "adaptive":
            return "adaptive thinking is not supported on this model"
        if "effort" in fields(asked.body.get("output_config")) and "opus-4-5" not in model:
            return "This model does not support the effort parameter."
        return None
    if kind not in {None, "adaptive"}:
        return f'"thinking.type.{kind}" is not supported for this model. Use "adaptive".'
    return None


# --- Responses


def stateless(asked: StrictAsked) -> str | None:
    """Refuse whatever needs a stored request, as OpenAI does with ``store: false`` (bifrost#5410).

    Items may come back with their ids, as in OpenAI's guide on reasoning. If only the id of an item
    comes back, the server looks the item up (2026-11).
    """
    if asked.body.get("store") is not False:
        return "store must be false: this organization keeps no data"
    if asked.body.get("previous_response_id"):
        return "Previous response not found."
    for item in asked.messages:
        is_bare = item.get("type") == "reasoning" and not item.get("encrypted_content")
        if item.get("type") == "item_reference" or (is_bare and item.get("id")):
            return f"Item with id {item.get('id')!r} not found. Items are not persisted."
    return None


def encrypted_back(asked: StrictAsked) -> str | None:
    """Refuse encrypted reasoning of others, as OpenAI does (sub2api#3138)."""
    for item in asked.messages:
        if item.get("type") == "reasoning" and (
            text(item.get("encrypted_content")) not in asked.issued
        ):
            return "invalid_encrypted_content"
    return None


def reasoning_with_calls(asked: StrictAsked) -> str | None:
    """Require reasoning before its call, and an item after reasoning, as OpenAI does.

    A call made by another model has no reasoning.
    """
    before: Fields = {}
    for item in asked.messages:
        kind, last = item.get("type"), before.get("type")
        if last == "message" and before.get("role") != "assistant":
            last = "user"  # what led to the call is not a word of the user's
        is_own = kind == "function_call" and text(item.get("call_id")) in asked.issued
        if is_own and last not in {"reasoning", "function_call", "message"}:
            return "Item of type 'function_call' was provided without its required 'reasoning' item"
        if last == "reasoning" and kind not in {"function_call", "message", "reasoning"}:
            return "Item of type 'reasoning' was provided without its required following item."
        before = item
    return None


def outputs_match(asked: StrictAsked) -> str | None:
    """Require one output for each call, and a call for each output, as OpenAI does."""
    called = [text(one.get("call_id")) for one in _of(asked, "function_call")]
    answered = [text(one.get("call_id")) for one in _of(asked, "function_call_output")]
    for one in called:
        if answered.count(one) != 1:
            return f"No tool output found for function call {one}."
    for one in answered:
        if one not in called:
            return f"No tool call found for function call output with call_id {one}."
    return None


def _of(asked: StrictAsked, kind: str) -> list[Fields]:
    return [item for item in asked.messages if item.get("type") == kind]

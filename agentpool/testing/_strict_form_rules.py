"""Rules for the form of a request: roles, names, and places for images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from agentpool.testing._strict_asked import Fields, StrictAsked, fields, items, text

_NAME: Final = r"[a-zA-Z0-9_-]{1,64}"


def legal_names(asked: StrictAsked) -> str | None:
    """Refuse invalid tool names, as OpenAI and Bedrock do (mcp-use#90, mastra#13632).

    Seen at both in November 2026. Anthropic takes 128 characters, which no client needs.
    """
    tools = items(asked.body.get("tools"))
    for name in (text(_named(one).get("name")) for one in (*tools, *asked.every_call())):
        if not re.fullmatch(_NAME, name):
            return (
                f"Invalid name of a tool: {name!r} does not match pattern. Expected a string that "
                "matches the pattern '^[a-zA-Z0-9_-]+$', of at most 64 characters."
            )
    return None


def _named(one: Fields) -> Fields:
    return fields(one["function"]) if "function" in one else one


# --- Chat Completions


_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


def known_roles(asked: StrictAsked) -> str | None:
    """Refuse a conversation without messages, and unknown roles, as all servers do."""
    if not asked.messages:
        return "Invalid 'messages': empty array. Expected an array with minimum length 1."
    for index, message in enumerate(asked.messages):
        if message.get("role") not in _ROLES:
            return (
                f"Invalid value: {message.get('role')!r}. Supported values are: "
                f"{', '.join(map(repr, _ROLES))}. (messages[{index}].role)"
            )
    return None


def images_of_users(asked: StrictAsked) -> str | None:
    """Refuse images outside user messages, as OpenAI and Mistral do (openai-node#1030)."""
    for index, message in enumerate(asked.messages):
        kinds = {text(part.get("type")) for part in items(message.get("content"))}
        if message.get("role") != "user" and "image_url" in kinds:
            return (
                f"Invalid 'messages[{index}]'. Image URLs are only allowed for messages with role "
                f"'user', but this message with role {message.get('role')!r} contains an image URL."
            )
    return None


def no_stop(asked: StrictAsked) -> str | None:
    """Refuse stop texts, as GPT-5 to 5.4 and o1 to o4 do (smolagents#1893, litellm#28650)."""
    thinks = re.match(r"gpt-5(?:\.[0-4])?(?:-|$)|o[134]\b", text(asked.body.get("model")))
    if thinks and asked.body.get("stop") is not None:
        return "Unsupported parameter: 'stop' is not supported with this model."
    return None


def no_stream_options(asked: StrictAsked) -> str | None:
    """Refuse options of a stream if no stream is requested, as OpenAI and vLLM do (vllm#4967)."""
    if asked.body.get("stream_options") is not None and asked.body.get("stream") is not True:
        return "Stream options can only be defined when `stream=True`."
    return None


def answer_not_last(asked: StrictAsked) -> str | None:
    """Refuse an answer without ``prefix`` as the last message, as Mistral does (crewAI#2194)."""
    last = asked.messages[-1]
    if last.get("role") == "assistant" and last.get("prefix") is not True:
        return (
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
            "assistant"
        )
    return None


# --- Messages


_MEDIA: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")
_EFFORTS: Final = ("low", "medium", "high", "xhigh", "max")


def unique_tools(asked: StrictAsked) -> str | None:
    """Require unique tool names, schemas of objects and known efforts, as Anthropic does."""
    names = [text(tool.get("name")) for tool in items(asked.body.get("tools"))]
    if len(set(names)) != len(names):
        return "tools: Tool names must be unique."
    for index, tool in enumerate(items(asked.body.get("tools"))):
        if fields(tool.get("input_schema")).get("type") != "object":
            return f"tools.{index}.custom.input_schema.type: Field required"
    effort = fields(asked.body.get("output_config")).get("effort")
    if effort is not None and effort not in _EFFORTS:
        words = ", ".join(map(repr, _EFFORTS))
        return f"output_config.effort: Input should be {words}"
    return None


def known_blocks(asked: StrictAsked) -> str | None:
    """Allow only two roles, and only images of four kinds from the user, as Anthropic does."""
    for index, message in enumerate(asked.messages):
        role = message.get("role")
        if role not in {"user", "assistant"}:
            return f"messages.{index}.role: Input should be 'user' or 'assistant'"
        for block in _blocks_below(message):
            kind, source = block.get("type"), fields(block.get("source"))
            if role == "assistant" and kind in {"image", "document"}:
                return f"messages.{index}: {kind} blocks are only allowed in user messages"
            is_own = kind == "image" and source.get("type") == "base64"
            if is_own and source.get("media_type") not in _MEDIA:
                words = ", ".join(map(repr, _MEDIA))
                return f"messages.{index}: source.media_type: Input should be {words}"
            if kind == "tool_use" and not isinstance(block.get("input"), Mapping):
                return f"messages.{index}: tool_use.input: Input should be a valid dictionary"
    return None


def _blocks_below(message: Fields) -> Iterator[Fields]:
    for block in items(message.get("content")):
        yield block
        yield from items(block.get("content"))


# --- Responses


_ITEMS: Final = ("message", "function_call", "function_call_output", "reasoning", "item_reference")
_SENT_PARTS: Final = ("input_text", "input_image", "input_file")
_ANSWERED_PARTS: Final = ("output_text", "refusal")


def known_items(asked: StrictAsked) -> str | None:
    """Allow only known items, roles and parts, in their places, as OpenAI does (2026-11)."""
    if not asked.body.get("input"):
        return "One of 'input' or 'previous_response_id' must be provided."
    for index, item in enumerate(asked.messages):
        kind = item.get("type", "message")
        if kind not in _ITEMS:
            return _not_known(kind, _ITEMS, f"input[{index}].type")
        if kind != "message":
            continue
        role = item.get("role")
        if role not in _ROLES[:4]:
            return _not_known(role, _ROLES[:4], f"input[{index}].role")
        known = _ANSWERED_PARTS if role == "assistant" else _SENT_PARTS
        for part in items(item.get("content")):
            if part.get("type") not in known:
                return _not_known(part.get("type"), known, f"input[{index}].content")
    return None


def _not_known(value: object, known: Sequence[str], place: str) -> str:
    words = ", ".join(map(repr, known))
    return f"Invalid value: {value!r}. Supported values are: {words}. ({place})"

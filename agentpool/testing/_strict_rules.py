"""The rules of real servers, each with the words of its refusal.

A rule is a function that returns why a request is refused, or ``None``. Each rule was seen on the
real server, and its docstring says where.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias, cast

import msgspec

from agentpool.testing._strict_asked import Fields, StrictAsked, fields, items, text

Rule: TypeAlias = Callable[[StrictAsked], str | None]
"""Returns why a request is refused. ``None``: it is not refused."""

SAMPLING: Final = ("temperature", "top_p", "top_k", "presence_penalty", "frequency_penalty")
"""The parameters that newer models refuse, whatever their value."""


FOREIGN_CALL: Final = "skip_thought_signature_validator"
"""The signature of a call that Gemini did not make."""


def no_sampling(asked: StrictAsked) -> str | None:
    """Refuse sampling, as GPT-5 and Opus 4.7 on do (langchaingo#1355, github/app#2574)."""
    for name in SAMPLING:
        if asked.body.get(name) is not None:
            return f"Unsupported parameter: '{name}' is not supported with this model."
    return None


def newer_limit(asked: StrictAsked) -> str | None:
    """Refuse the old name of the limit, as OpenAI's newer models do in chat (OpenHands#11662)."""
    if "max_tokens" in asked.body:
        return (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        )
    return None


def no_effort_with_tools(asked: StrictAsked) -> str | None:
    """Refuse an effort with tools, as GPT-5.6 and later do in Chat Completions (goose#11413)."""
    effort = asked.body.get("reasoning_effort")
    if asked.body.get("tools") and effort not in {None, "none"}:
        return (
            "Function tools with reasoning_effort are not supported in /v1/chat/completions. "
            "Please use /v1/responses instead."
        )
    return None


def no_forced_tools(asked: StrictAsked) -> str | None:
    """Refuse a forced tool while the model thinks, as Opus 5.5, DeepSeek V4 do (litellm#31466)."""
    choice = asked.body.get("tool_choice")
    kind = choice if isinstance(choice, str) else fields(choice).get("type")
    if kind not in {None, "auto", "none"}:
        return "Thinking may not be enabled when tool_choice forces tool use."
    return None


def known_fields(*known: str) -> Rule:
    """Return a rule that refuses all other fields, as OpenAI, Anthropic and Mistral do."""

    def rule(asked: StrictAsked) -> str | None:
        unknown = [name for name in asked.body if name not in known]
        return f"{unknown[0]}: Extra inputs are not permitted" if unknown else None

    return rule


def known_message_fields(*known: str) -> Rule:
    """Return a rule that refuses other fields of a message, as Mistral (crush#1590) and Groq do.

    Groq calls thoughts ``reasoning``, and refuses them under the other name (req_llm#772).
    """

    def rule(asked: StrictAsked) -> str | None:
        for index, message in enumerate(asked.messages):
            for name in message:
                if name not in known:
                    return f"messages.{index}.{name}: Extra inputs are not permitted"
        return None

    return rule


def id_form(pattern: str, words: str) -> Rule:
    """Return a rule for the ids of calls (nanobot#1293, vis#152)."""

    def rule(asked: StrictAsked) -> str | None:
        for one in _call_ids(asked):
            if not re.fullmatch(pattern, one, re.DOTALL):
                return f"tool call id was {one!r} but must be {words}"
        return None

    return rule


def unique_ids(asked: StrictAsked) -> str | None:
    """Refuse an id that two calls have, as Anthropic and OpenAI do (oh-my-pi#2055, pi#9057)."""
    seen: set[str] = set()
    for one in _call_ids(asked):
        if one in seen:
            return f"tool call ids must be unique, found {one!r} twice"
        seen.add(one)
    return None


def _call_ids(asked: StrictAsked) -> Iterator[str]:
    for call in asked.every_call():
        yield text(call.get("call_id" if call.get("type") == "function_call" else "id"))


def results_follow_calls(asked: StrictAsked) -> str | None:
    """Refuse a call without exactly one result right after it, as all servers do."""
    waiting: list[str] = []
    for message in asked.messages:
        if message.get("role") == "tool":
            one = text(message.get("tool_call_id"))
            if one not in waiting:
                return f"messages with role 'tool' must answer a call: {one!r} was not called"
            waiting.remove(one)
        elif waiting:
            return f"tool_call_ids did not have response messages: {', '.join(waiting)}"
        waiting += [text(call.get("id")) for call in items(message.get("tool_calls"))]
    return f"tool_call_ids did not have response messages: {waiting}" if waiting else None


def system_first(asked: StrictAsked) -> str | None:
    """Refuse a system message that is not the first one, as Mistral and most local models do."""
    for index, message in enumerate(asked.messages):
        if message.get("role") == "system" and index:
            return "System message must be at the beginning."
    return None


def no_user_after_tool(asked: StrictAsked) -> str | None:
    """Refuse a user message right after a tool's, as Mistral does (goose#5998, zed#37021)."""
    roles = [message.get("role") for message in asked.messages]
    if ("tool", "user") in itertools.pairwise(roles):
        return "Unexpected role 'user' after role 'tool'"
    return None


def no_empty_answer(asked: StrictAsked) -> str | None:
    """Refuse an answer without text and calls, as Mistral and Kimi K3 do (tolokaforge#1286)."""
    for message in asked.messages:
        is_empty = not message.get("content") and not message.get("tool_calls")
        if message.get("role") == "assistant" and is_empty:
            return "Assistant message must have either content or tool_calls, but not none."
    return None


def content_key(asked: StrictAsked) -> str | None:
    """Refuse a message without ``content``, as llama-cpp-python, SGLang and gateways do."""
    for index, message in enumerate(asked.messages):
        if "content" not in message:
            return f"messages[{index}]: missing field 'content'"
    return None


def arguments_are_objects(asked: StrictAsked) -> str | None:
    """Refuse arguments that are not an object, as vLLM, Ollama, llama.cpp do (llama.cpp#25510).

    These servers parse them (pydantic-ai#7060).
    """
    for _, call in asked.calls():
        arguments = text(fields(call.get("function")).get("arguments"))
        try:
            msgspec.json.decode(arguments, type=dict[str, object])
        except msgspec.DecodeError:
            return f"failed to parse tool call arguments as JSON: {arguments!r}"
    return None


def reasoning_back(asked: StrictAsked) -> str | None:
    """Refuse an answer without its thoughts, as DeepSeek V4 and Kimi do (pi#3636, crewAI#5878).

    The rule holds for every answer (opencode#24802, Zoo-Code#201). An answer of a different model
    needs empty thoughts (continue#11285, hermes-agent#15741).
    """
    for message in asked.messages:
        said = message.get("reasoning_content")
        ids = {text(call.get("id")) for call in items(message.get("tool_calls"))}
        is_good = said in asked.issued or (said == "" and not ids & asked.issued)
        if message.get("role") == "assistant" and not is_good:
            return "The `reasoning_content` in the thinking mode must be passed back to the API."
    return None


def reasoning_beside_calls(asked: StrictAsked) -> str | None:
    """Refuse calls without thoughts, or with empty ones, as Kimi K2.5 and later do (pi#4178).

    A call made by a different model needs a space as its thoughts (llmgateway#2093,
    continue#11600).
    """
    for index, message in enumerate(asked.messages):
        said = message.get("reasoning_content")
        ids = {text(call.get("id")) for call in items(message.get("tool_calls"))}
        is_good = said in asked.issued or (said == " " and not ids & asked.issued)
        if ids and not is_good:
            return (
                "thinking is enabled but reasoning_content is missing in assistant tool call "
                f"message at index {index}"
            )
    return None


def signatures_back(asked: StrictAsked) -> str | None:
    """Refuse an answer whose first call has no signature, as Gemini 3 does (securo#884).

    Also seen in dify-official-plugins#2088. A call made by a different model needs a special
    signature (vercel/ai#15550).
    """
    for message in asked.messages:
        for call in items(message.get("tool_calls"))[:1]:
            google = fields(fields(call.get("extra_content")).get("google"))
            signature = text(google.get("thought_signature"))
            is_foreign = text(call.get("id")) not in asked.issued
            if signature not in asked.issued and not (is_foreign and signature == FOREIGN_CALL):
                name = text(fields(call.get("function")).get("name"))
                return f"Function call is missing a thought_signature: {name}"
    return None


def no_schemas(asked: StrictAsked) -> str | None:
    """Refuse a schema for the answer, as DeepSeek does (litellm#31466, inspect_ai#4916)."""
    if fields(asked.body.get("response_format")).get("type") == "json_schema":
        return "This response_format type is unavailable now"
    return None


def no_form_with_tools(asked: StrictAsked) -> str | None:
    """Refuse a form of the answer with tools, as Groq does (vercel/ai#16540, agno#1065)."""
    if asked.body.get("response_format") is not None and asked.body.get("tools"):
        return "json mode cannot be combined with tool/function calling"
    return None


def no_older_form_with_tools(asked: StrictAsked) -> str | None:
    """Refuse a form of the answer with tools, as Gemini before 3 does (python-genai#867).

    Also seen in openai-agents-python#656 (November 2026).
    """
    is_older = re.search(r"gemini-[12]\b", text(asked.body.get("model")))
    if is_older and no_form_with_tools(asked) is not None:
        return "Function calling with a response mime type: 'application/json' is unsupported"
    return None


def no_images(asked: StrictAsked) -> str | None:
    """Refuse images, as models that only read text do."""
    for message in asked.messages:
        for part in items(message.get("content")):
            if part.get("type") in {"image_url", "image", "input_image"}:
                return "unknown variant `image_url`, expected `text`"
    return None


def strict_schemas(asked: StrictAsked) -> str | None:
    """Refuse a strict schema that is open or does not require all its keys, as OpenAI does."""
    named = fields(fields(asked.body.get("response_format")).get("json_schema"))
    form = fields(fields(asked.body.get("text")).get("format"))
    for tool in items(asked.body.get("tools")):
        # In Responses a tool is strict unless it says otherwise.
        named_tool = fields(tool.get("function", tool))
        is_strict = named_tool.get("strict", "function" not in tool) is True
        if is_strict and (why := _why_not_strict(fields(named_tool.get("parameters")))):
            return f"Invalid schema for function {text(named_tool.get('name'))!r}: {why}"
    for one in (named, form):
        if one.get("strict") is True and (why := _why_not_strict(fields(one.get("schema")))):
            return f"Invalid schema for response_format: {why}"
    return None


def legal_keys(asked: StrictAsked) -> str | None:
    """Refuse illegal names of arguments, as Anthropic does (decocms/studio#6874, ComposioHQ#3574).

    Only the top level is checked.
    """
    for index, tool in enumerate(items(asked.body.get("tools"))):
        for key in fields(fields(tool.get("input_schema")).get("properties")):
            if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", key):
                return (
                    f"tools.{index}.custom.input_schema.properties: Property keys should match "
                    "pattern '^[a-zA-Z0-9_.-]{1,64}$'"
                )
    return None


def _why_not_strict(schema: Fields) -> str:
    if schema.get("type") == "object":
        properties = fields(schema.get("properties"))
        if schema.get("additionalProperties") is not False:
            return "'additionalProperties' is required to be supplied and to be false."
        required = schema.get("required")
        named = cast("list[object]", required) if isinstance(required, list) else []
        if set(properties) - set(named):
            return "'required' is required to include every key in properties."
        return next(
            (why for one in properties.values() if (why := _why_not_strict(fields(one)))), ""
        )
    return _why_not_strict(fields(schema["items"])) if "items" in schema else ""

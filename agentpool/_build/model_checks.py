"""What ``agentpool check`` reports on a manifest's models: facts and probable mistakes.

Rules:

1. Nothing is sent. The doubts rest on published facts, and on what providers say they refuse.
2. A doubt is a warning: facts may be older than a model, and names may be a user's own.

Sources of the refusals: goose#11413 (effort beside tools), pi#4178 and litellm#31466 (forced
tools, Kimi's sampling), https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
and https://platform.claude.com/docs/en/build-with-claude/extended-thinking (2026-11).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final, cast

import attrs

from agentpool._manifest.model import ModelConfig
from agentpool._manifest.request_settings import OWN_FIELDS
from agentpool._manifest.wires import is_openai, wants_effort, wire_of
from agentpool.drivers import PROVIDERS, Json, Place, find_facts, near_names, published_names

_KNOWN_OPTIONS: Final = (
    *("top_k", "min_p", "presence_penalty", "frequency_penalty", "repeat_penalty", "logit_bias"),
    *("logprobs", "top_logprobs", "service_tier", "metadata", "user", "parallel_tool_calls"),
    *("tool_choice", "prediction", "modalities", "prompt_cache_key", "prompt_cache_retention"),
    *("safety_identifier", "thinking", "enable_thinking", "chat_template_kwargs", "provider"),
    *("plugins", "transforms", "models", "route", "reasoning", "text", "include", "truncation"),
    *("max_tool_calls", "output_config", "cache_control", "container", "context_management"),
    *("repetition_penalty", "grammar", "cache_prompt", "typical_p", "mirostat", "keep_alive"),
    *("reasoning_format", "safe_prompt", "extra_body", "stop_token_ids", "guided_json"),
)
"""Fields of requests that providers have and agentpool does not write."""

_THINKS_BY_BUDGET: Final = re.compile(
    r"claude-3|claude-(?:opus|sonnet|haiku)-4(?:[-.][0-6])?(?:-\d{8}|-latest)?$"
)
"""Claude models that take a budget for thoughts; 4.6 takes both."""

_ALIKE: Final = 0.8
"""How similar a word is to one that was probably meant."""

_SHOWN_NAMES: Final = 5


def key_words(place: Place) -> str:
    """Return which key is sent, and whether it is set."""
    variable = place.api_key_env
    if variable is None:
        return f"no key to {place.host}"
    is_set = bool(os.environ.get(variable, "").strip())
    return f"${variable} to {place.host}{'' if is_set else ' (not set in this environment)'}"


def window_words(model: ModelConfig) -> str:
    """Return how large the window is, and the source of that number."""
    if model.context_window:
        return f"{model.context_window:,} tokens"
    if model.place is None:
        return "the usual window of local models; context_window sets a different one"
    facts = find_facts(model)
    if facts is None or facts.context_window is None:
        return "unknown; context_window sets it"
    return f"{facts.context_window:,} tokens, as published"


def model_object(model: ModelConfig) -> dict[str, Json]:
    """Return what is known of *model*, for ``--json``."""
    place, facts = model.place, find_facts(model)
    found: dict[str, Json] = {"name": model.words, "at": None, "key": None, "facts": None}
    if place is not None:
        found["at"] = place.base_url
        if place.api_key_env is not None:
            is_set = bool(os.environ.get(place.api_key_env, "").strip())
            found["key"] = {"variable": place.api_key_env, "set": is_set}
    if facts is not None:
        told = attrs.asdict(facts, recurse=False)
        told["inputs"] = None if facts.inputs is None else sorted(facts.inputs)
        price = facts.price and facts.price.usual
        told["price"] = price and {
            field.name: getattr(price, field.name) for field in attrs.fields(type(price))
        }
        found["facts"] = cast("Json", told)
    return found


def model_doubts(model: ModelConfig, *, has_tools: bool) -> Iterator[str]:
    """Yield, in words, what is probably wrong with *model*, or will be refused.

    Args:
        model: What the manifest says.
        has_tools: Whether the model will be shown tools.
    """
    facts = find_facts(model)
    if facts is not None:
        yield from facts.refusals(model, has_tools=has_tools)
    yield from _name_doubts(model)
    yield from _key_doubts(model)
    yield from _option_doubts(model)
    if (place := model.place) is not None:
        yield from _wire_refusals(model, place, has_tools=has_tools)


def _name_doubts(model: ModelConfig) -> Iterator[str]:
    name, place = model.remote_model or "", model.place
    if place is None or find_facts(model) is not None:
        return
    # What was trained there has a prefix, and how a router shall choose is said behind the name.
    if name.startswith("ft:") or name.partition(":")[0] in published_names(place.facts):
        return
    said = f"model.remote_model: nothing is published about {name!r}"
    if near := near_names(model)[:1]:
        yield f"{said}; did you mean {near[0]!r}?"
    elif names := published_names(place.facts):
        at = [one for one in PROVIDERS if name in published_names(PROVIDERS[one].facts)]
        where = f", but {at[0]} has it" if at else ""
        yield f"{said} at {place.host}{where}; it has {', '.join(names[:_SHOWN_NAMES])}, …"


def _key_doubts(model: ModelConfig) -> Iterator[str]:
    place, variable = model.place, model.api_key_env
    if place is None or variable is None or place.facts is None:
        return  # at a place of the user's own any key may be right
    words = variable.lower().split("_")
    here = {word for word, one in PROVIDERS.items() if one.facts == place.facts}
    usual = {PROVIDERS[word].api_key_env for word in here}
    others = [word for word in PROVIDERS if word in words and word not in here]
    if others and variable not in usual and here.isdisjoint(words):
        yield (
            f"model.api_key_env: ${variable} sounds like the key of {others[0]}, and is sent to "
            f"{place.host}; name another variable"
        )


def _option_doubts(model: ModelConfig) -> Iterator[str]:
    for key in model.options:
        if key in _KNOWN_OPTIONS:
            continue
        near = difflib.get_close_matches(key, (*_KNOWN_OPTIONS, *OWN_FIELDS), 1, _ALIKE)
        if near:
            advice = OWN_FIELDS.get(near[0])
            advice = f", which is not an option: {advice}" if advice else ""
            yield f"model.options.{key}: is sent as it is; did you mean {near[0]!r}{advice}?"


def _wire_refusals(model: ModelConfig, place: Place, *, has_tools: bool) -> Iterator[str]:
    wire, name = wire_of(place.dialect, place.host, model.api), model.remote_model or ""
    effort = wants_effort(model.reasoning_effort)
    if wire == "chat" and is_openai(place.host) and effort and has_tools:
        yield (
            'model.api: newer OpenAI models refuse reasoning_effort together with tools in "chat"; '
            'leave out api = "chat"'
        )
    if place.rules == "moonshot":
        for key in ("temperature", "top_p"):
            if getattr(model, key) is not None:
                yield f"model.{key}: Kimi K2.5 and later accept only their own; leave it out"
    own = model.options.get("thinking")
    thinking = cast("Mapping[str, object]", own).get("type") if isinstance(own, Mapping) else None
    thinks = thinking in {"enabled", "adaptive"} or (effort and wire == "messages")
    if _is_forced(model.options.get("tool_choice")) and (
        thinks or place.rules in {"deepseek", "moonshot"}
    ):
        yield (
            f"model.options.tool_choice: {name} cannot be forced to call tools while it thinks; "
            "leave it out"
        )
    if wire == "messages" and "claude" in name:
        yield from _claude_refusals(model, name, thinking=thinking, thinks=thinks)


def _claude_refusals(
    model: ModelConfig, name: str, *, thinking: object, thinks: bool
) -> Iterator[str]:
    if thinking == "enabled" and not _THINKS_BY_BUDGET.search(name):
        yield f'model.options.thinking: {name} takes no budget; write thinking.type = "adaptive"'
    facts = find_facts(model)
    takes_none = facts is not None and facts.takes_sampling is False
    for key in ("temperature", "top_p"):
        if thinks and getattr(model, key) is not None and not takes_none:
            yield f"model.{key}: {name} accepts none while it thinks; leave it out"
    if "top_k" in model.options and (thinks or takes_none):
        yield f"model.options.top_k: {name} takes none; leave it out"


def _is_forced(choice: object) -> bool:
    is_table = isinstance(choice, Mapping)
    kind = cast("Mapping[str, object]", choice).get("type") if is_table else choice
    return kind not in {None, "auto", "none"}

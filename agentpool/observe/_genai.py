"""The names of OpenTelemetry's GenAI conventions that are used here.

Source: https://github.com/open-telemetry/semantic-conventions-genai, v0.1.0, status Development,
read 2026-11. The conventions will change; packages of constants have older versions of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeVar, cast

from agentpool._events import CompletionReceived, RequestFailed
from agentpool._messages import Usage
from agentpool.observe._bill import Bill
from agentpool.observe._codec import unicode_text

_Value = TypeVar("_Value")

CONVENTIONS: Final = "v0.1.0"
"""The version of the conventions that the names come from."""

OPERATION: Final = "gen_ai.operation.name"
AGENT_NAME: Final = "gen_ai.agent.name"
CONVERSATION: Final = "gen_ai.conversation.id"
PROVIDER: Final = "gen_ai.provider.name"
REQUEST_MODEL: Final = "gen_ai.request.model"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
SYSTEM: Final = "gen_ai.system_instructions"
ERROR_TYPE: Final = "error.type"

_PROVIDERS: Final = {
    "": "_OTHER",
    "gemini": "gcp.gemini",
    "local": "llama.cpp",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
"""The values of ``PROVIDER`` that differ from our names. The attribute is required, so even an
unknown provider gets a value."""

# --- metrics

USAGE: Final = "gen_ai.client.inference.usage"
"""The beginning of the token counters' names."""

TOKEN_COUNTERS: Final = {
    "input_tokens": "input_tokens",
    "output_tokens": "output_tokens",
    "cached_tokens": "cache_read.input_tokens",
    "reasoning_tokens": "reasoning.output_tokens",
}
"""The ends of the token counters' names, by the fields of ``Usage``."""

ESTIMATE_COUNTERS: Final = {
    "unmeasured": ("requests.unmeasured", "{request}", "Requests whose tokens are unknown."),
    "unpriced": ("requests.unpriced", "{request}", "Requests whose cost is unknown."),
    "estimated_tokens": ("tokens.estimated", "{token}", "Text of requests that broke off."),
    "charged_tokens": ("budget.tokens.estimated", "{token}", "Tokens that budgets were charged."),
    "charged_usd": ("budget.cost.estimated", "USD", "What budgets were charged as an estimate."),
}
"""The counters of unknown and estimated usage, by the fields of `Bill`: the name after
``agentpool.``, the unit and the meaning."""

REQUEST_SECONDS: Final = "gen_ai.client.inference.duration"
FIRST_CHUNK_SECONDS: Final = "gen_ai.client.inference.time_to_first_chunk"
AGENT_SECONDS: Final = "gen_ai.invoke_agent.duration"
AGENT_REQUESTS: Final = "gen_ai.invoke_agent.inference_calls"
AGENT_CALLS: Final = "gen_ai.invoke_agent.tool_calls"
TOOL_SECONDS: Final = "gen_ai.execute_tool.duration"


def provider_name(named: str) -> str:
    """Return the value of ``PROVIDER`` for a manifest's provider.

    >>> provider_name("anthropic"), provider_name("xai"), provider_name("")
    ('anthropic', 'x_ai', '_OTHER')
    """
    return _PROVIDERS.get(named, named)


def usage_of(usage: Usage) -> dict[str, int]:
    """Return the attributes for *usage*."""
    return {
        INPUT_TOKENS: usage.input_tokens,
        OUTPUT_TOKENS: usage.output_tokens,
        CACHED_TOKENS: usage.cached_tokens,
        REASONING_TOKENS: usage.reasoning_tokens,
    }


def bill_of(event: CompletionReceived | RequestFailed) -> dict[str, float]:
    """Return the attributes for an attempt's usage; unknown parts are left out."""
    bill, found = Bill(), dict[str, float]()
    bill.take(event)
    known = bill.usage + Usage(output_tokens=-bill.estimated_tokens)
    if known.total_tokens or (isinstance(event, CompletionReceived) and event.usage is not None):
        found.update(usage_of(known))
    if not bill.unpriced and (isinstance(event, CompletionReceived) or event.lost):
        found["agentpool.cost_usd"] = bill.known_usd
    for field, (name, _, _) in ESTIMATE_COUNTERS.items():
        number: float = getattr(bill, field)
        if number:
            found[f"agentpool.{name}"] = number
    return found


def writable(attributes: Mapping[str, _Value]) -> dict[str, _Value]:
    r"""Return *attributes* without lone surrogates: just one can make an exporter lose a batch.

    >>> writable({"name": "caf\udce9", "turn": 1})
    {'name': 'caf\\udce9', 'turn': 1}
    """
    return {
        name: cast("_Value", unicode_text(value)) if isinstance(value, str) else value
        for name, value in attributes.items()
    }

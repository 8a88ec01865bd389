"""Reads tokens and cost in Chat Completions, under the field names of all servers.

Source: https://platform.openai.com/docs/api-reference/chat-streaming, OpenRouter's
https://openrouter.ai/docs/use-cases/usage-accounting, DeepSeek's
https://api-docs.deepseek.com/guides/kv_cache, Moonshot's ``cached_tokens``, Groq's ``x_groq``
and the counts of Anthropic that LiteLLM forwards (2026-11).
"""

from __future__ import annotations

import msgspec

from agentpool._messages import Usage
from agentpool.drivers.wire._token_counts import count_of, counted


class _Sent(msgspec.Struct):
    cached_tokens: float | None = None
    cache_write_tokens: float | None = None


class _Written(msgspec.Struct):
    reasoning_tokens: float | None = None


class _CostDetails(msgspec.Struct):
    upstream_inference_cost: float | None = None


class ChatUsage(msgspec.Struct):
    """The usage of an answer. Each server sends only some of the fields."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    total_tokens: float | None = None
    prompt_tokens_details: _Sent | None = None
    completion_tokens_details: _Written | None = None
    # The names of the other interfaces.
    input_tokens: float | None = None
    output_tokens: float | None = None
    # DeepSeek's, Moonshot's, and Anthropic's by way of a gateway.
    prompt_cache_hit_tokens: float | None = None
    cached_tokens: float | None = None
    cache_read_input_tokens: float | None = None
    cache_creation_input_tokens: float | None = None
    reasoning_tokens: float | None = None
    # OpenRouter's, in US dollars.
    cost: float | None = None
    is_byok: bool | None = None
    cost_details: _CostDetails | None = None

    def counted(self) -> Usage | None:
        """Return the usage. ``None``: input or output is missing."""
        sent = self.input_tokens if self.prompt_tokens is None else self.prompt_tokens
        written = self.output_tokens if self.completion_tokens is None else self.completion_tokens
        if written is None and sent is not None and self.total_tokens is not None:
            written = self.total_tokens - sent
        details = self.prompt_tokens_details or _Sent()
        kept = self.completion_tokens_details or _Written()
        cached = (
            *(details.cached_tokens, self.prompt_cache_hit_tokens, self.cached_tokens),
            self.cache_read_input_tokens,
        )
        written_to_cache = details.cache_write_tokens or self.cache_creation_input_tokens
        return counted(
            sent,
            written,
            cached=next((count_of(one) for one in cached if one), 0),
            thought=count_of(kept.reasoning_tokens or self.reasoning_tokens),
            kept=count_of(written_to_cache),
            total=self.total_tokens,
        )

    def price(self) -> float | None:
        """Return the cost in US dollars. ``None``: the server did not say."""
        # With a key of one's own, the provider behind the gateway charges beside it.
        upstream = self.cost_details and self.cost_details.upstream_inference_cost
        if self.is_byok and upstream:
            return (self.cost or 0.0) + upstream
        return self.cost

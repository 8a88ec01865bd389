"""Published facts about a model: its window, its inputs, its price.

Facts come from a table that others maintain. The manifest's own values take precedence, and what is
unknown stays unknown: ``None`` means neither no nor zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

import attrs

from agentpool._manifest.model import ModelConfig, TokenPrice
from agentpool._manifest.wires import is_openai, wants_effort
from agentpool._messages import Usage

LONG_TOKENS: Final = 200_000
"""The number of sent tokens above which some providers charge another price."""


@final
@attrs.frozen(kw_only=True)
class PublishedPrice:
    """A provider's published price for a model."""

    usual: TokenPrice
    """The price of most requests."""
    long: TokenPrice | None = None
    """The price of requests with more than 200,000 tokens. ``None``: the usual price."""

    def __call__(self, usage: Usage) -> float | None:
        """Return the cost of *usage* of one request. ``None``: it cannot be computed."""
        if usage.cached_tokens + usage.cache_write_tokens > usage.input_tokens:
            return None
        is_long = self.long is not None and usage.input_tokens > LONG_TOKENS
        price = self.long if self.long is not None and is_long else self.usual
        return price(usage)


@final
@attrs.frozen(kw_only=True)
class ModelFacts:
    """The published facts about one model at one provider."""

    context_window: int | None = None
    """Tokens of request and answer together. ``None``: unknown. The same holds for the fields
    below."""
    max_input_tokens: int | None = None
    """The most tokens that it reads. ``None``: what the window has room for, or unknown."""
    max_output_tokens: int | None = None
    """The most tokens that it writes in one answer."""
    takes_sampling: bool | None = None
    """Whether it takes ``temperature`` and ``top_p``."""
    takes_tools: bool | None = None
    """Whether it can call tools."""
    thinks: bool | None = None
    """Whether it can think before it answers, and so takes an effort."""
    inputs: frozenset[str] | None = None
    """The supported inputs: ``text``, ``image``, ``pdf``, ``audio``, ``video``."""
    price: PublishedPrice | None = None
    """The price of the model."""
    is_deprecated: bool = False
    """Whether its provider is going to remove it."""

    def refusals(self, model: ModelConfig, *, has_tools: bool) -> Iterator[str]:
        """Yield, in words, the settings of *model* that its provider will refuse.

        Args:
            model: The manifest's settings of the model.
            has_tools: Whether the model will be shown tools.
        """
        if self.takes_sampling is False:
            for name in ("temperature", "top_p"):
                if getattr(model, name) is not None:
                    yield f"model.{name}: {model.remote_model} takes none; leave it out"
            yield from _moves(model)
        if self.thinks is False and wants_effort(model.reasoning_effort):
            yield (
                f"model.reasoning_effort: {model.remote_model} does not think, got "
                f"{model.reasoning_effort!r}; leave it out"
            )
        most, limit = self.max_output_tokens, model.max_tokens
        if most is not None and limit is not None and limit > most:
            yield f"model.max_tokens: {model.remote_model} writes at most {most:,}, got {limit:,}"
        known, window = self.context_window, model.context_window
        if known is not None and window is not None and window > known:
            text = f"model.context_window: {model.remote_model} has {known:,} tokens, "
            yield f"{text}got {window:,}"
        if self.takes_tools is False and has_tools:
            yield f"capabilities: {model.remote_model} cannot call tools"
        if self.is_deprecated:
            yield f"model.remote_model: {model.remote_model} is deprecated; choose another"

    def __str__(self) -> str:
        """Return the facts on one line."""
        said = list(self._sizes())
        takes = sorted((self.inputs or frozenset()) - {"text"})
        if self.inputs is not None:
            said.append(f"takes {', '.join(('text', *takes))}")
        if self.takes_sampling is False:
            said.append("no temperature")
        if self.price is not None:
            price = self.price.usual
            dollars = f"${price.input_usd_per_million:g} in, ${price.output_usd_per_million:g} out"
            if price.cached_usd_per_million is not None:
                dollars += f", ${price.cached_usd_per_million:g} cached"
            said.append(f"{dollars}, per million tokens")
        return "; ".join(said) or "nothing more than its name"

    def _sizes(self) -> Iterator[str]:
        if self.context_window is not None:
            most = self.max_input_tokens
            read = f", of which it reads at most {most:,}" if most is not None else ""
            yield f"window {self.context_window:,} tokens{read}"
        if self.max_output_tokens is not None:
            yield f"at most {self.max_output_tokens:,} for one answer"


def _moves(model: ModelConfig) -> Iterator[str]:
    """Yield the settings that move a reasoning model of OpenAI to Chat Completions."""
    place = model.place
    if place is None or model.api is not None or not is_openai(place.host):
        return
    for name in ("stop", "seed"):
        if getattr(model, name) not in (None, ()):
            yield (
                f"model.{name}: the Responses API knows none, so {model.remote_model} is asked "
                "through Chat Completions, where it may refuse this or its tools; leave it out"
            )

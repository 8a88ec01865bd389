"""The door to genai-prices: what a hosted model costs, for whoever did not say.

Rules:

1. The user's own price comes first. One price, or a function, is the last word; a table
   says something of its own models only.
2. What is published counts by the model and the address: the same name costs something
   else at another provider, and nothing is known of a server of one's own.
3. A model of which a price of text is missing has none: half a price would look cheap.
4. The prices are those of the installed package. Nothing is fetched.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from typing import Final, TypeAlias, final

import attrs
import trio

from agentpool._manifest.model import TokenPrice
from agentpool._messages import Usage
from agentpool.drivers._hosted import Price

Prices: TypeAlias = Price | Mapping[str, TokenPrice]
"""One price, a function, or a table from the names of models to their prices."""

# A provider asked for `name` says that `name-2026-08-06` has answered.
_DATE: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$")


async def find_price(prices: Prices | None, base_url: str) -> Price | None:  # noqa: ASYNC910  # a price that is given is not waited for
    """Return what says the price of the models at *base_url*. ``None``: nobody does.

    Args:
        prices: What the user gave.
        base_url: Where the API is.
    """
    if callable(prices):
        return prices  # noqa: ASYNC910  # the same
    published = await _load_published(base_url)
    return TableOfPrices(dict(prices), published) if prices else published


async def _load_published(base_url: str) -> Price | None:  # noqa: ASYNC910  # what is there is not waited for
    if importlib.util.find_spec("genai_prices") is None:
        return None  # noqa: ASYNC910  # there is nothing to load
    if "genai_prices.data" not in sys.modules:
        # Some tenths of a second, in which agents that run already should go on.
        await trio.to_thread.run_sync(importlib.import_module, "genai_prices.data")
    return PublishedPrices(base_url)  # noqa: ASYNC910  # loaded once


@final
@attrs.frozen
class TableOfPrices:
    """The user's own prices, and the published ones of all other models."""

    own: Mapping[str, TokenPrice]
    """By the name of the model, with its date or without."""
    published: Price | None
    """Asked for models that the table does not have. ``None``: nobody knows those."""

    def __call__(self, usage: Usage, model: str | None) -> float | None:
        """Return what *usage* of *model* costs; ``None`` if nobody knows."""
        name = model or ""
        price = self.own.get(name) or self.own.get(_DATE.sub("", name))
        if price is not None:
            return price(usage)
        return None if self.published is None else self.published(usage, model)


@final
@attrs.frozen
class PublishedPrices:
    """The prices that genai-prices knows of the provider at an address."""

    base_url: str
    """The provider is known by it."""

    def __call__(self, usage: Usage, model: str | None) -> float | None:
        """Return what *usage* of *model* costs; ``None`` if it is not known."""
        import genai_prices  # noqa: PLC0415  # it brings an HTTP client and pydantic

        try:
            found = genai_prices.calc_price(
                genai_prices.Usage(
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cached_tokens,
                ),
                model or "",
                provider_api_url=self.base_url,
            )
        except (LookupError, ValueError):
            # No such model there; or a usage that means nothing, like more cached
            # tokens than were sent.
            return None
        if found.model_price.input_mtok is None or found.model_price.output_mtok is None:
            return None
        return float(found.total_price)

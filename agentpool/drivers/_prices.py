"""Finds the price of a hosted model.

Rules:

1. The user's own price comes first. A single price, or a function, decides alone; a table decides
   only for its own models.
2. Next comes the cost that a server sends with its answer, unless that is zero.
3. Last comes the published price, as in ``_facts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, final

import attrs

from agentpool._manifest.model import TokenPrice
from agentpool._manifest.providers import facts_name
from agentpool._messages import Usage
from agentpool.drivers._facts import facts_of, load_facts, without_date
from agentpool.drivers._hosted import Price

Prices: TypeAlias = Price | Mapping[str, TokenPrice]
"""One price, a function, or a table from the names of models to their prices."""


async def find_price(prices: Prices | None, base_url: str) -> Price | None:  # noqa: ASYNC910  # a price that is given is not waited for
    """Return a function for the prices at *base_url*. ``None``: no price is known.

    Args:
        prices: The prices that the user gave.
        base_url: The address of the API.
    """
    if callable(prices):
        return prices  # noqa: ASYNC910  # the same
    provider = facts_name(base_url)
    published = PublishedPrices(provider) if await load_facts(provider) else None
    return TableOfPrices(dict(prices), published) if prices else published


def own_price(prices: Prices | None) -> Price | None:
    """Return the price that the user gave. ``None``: there is none."""
    if prices is None or callable(prices):
        return prices
    return TableOfPrices(dict(prices), None)


@final
@attrs.frozen
class TableOfPrices:
    """The user's own prices, and published ones for all other models."""

    own: Mapping[str, TokenPrice]
    """The prices by the name of the model, with or without its date."""
    published: Price | None
    """Returns prices of models that the table lacks. ``None``: these are unknown."""

    def __call__(self, usage: Usage, model: str | None) -> float | None:
        """Return the cost of *usage* of *model*. ``None``: its price is unknown."""
        name = model or ""
        price = self.own.get(name) or self.own.get(without_date(name))
        if price is not None:
            return price(usage)
        return None if self.published is None else self.published(usage, model)


@final
@attrs.frozen
class PublishedPrices:
    """The published prices of a provider's models."""

    provider: str | None
    """The provider's name at models.dev. ``None``: nothing is published about it."""

    def __call__(self, usage: Usage, model: str | None) -> float | None:
        """Return the cost of *usage* of *model*. ``None``: its price is unknown."""
        facts = facts_of(self.provider, model or "")
        return None if facts is None or facts.price is None else facts.price(usage)

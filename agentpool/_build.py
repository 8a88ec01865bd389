"""Manifest and environment, put together: which driver, which tools, which memory.

The one place where the two meet. The command line is built on it; whoever embeds a pool
may prefer to choose everything by hand.

Rules:

1. Each agent gets the driver of its own manifest, never of another one's. Manifests that
   name the same model share one driver.
2. What a person says on the command line goes before the manifest, but never around its
   privacy: the changed manifest is checked like any other.
3. The memory tools work on the memory that the loop uses, in the agent's own scope.
4. A grant for which there is no tool is said, not passed over.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, TypeAlias, final

import attrs

from agentpool import drivers
from agentpool._capability import CapabilityKind
from agentpool._entry import driver_for
from agentpool._errors import ManifestError, UsageError
from agentpool._manifest import DEFAULT_CAPABILITIES, AgentManifest, ModelConfig
from agentpool._manifest_parts import PROVIDERS, Provider
from agentpool._nursery import ToolBuilder
from agentpool._open import open_pool
from agentpool._pool import AgentPool
from agentpool._spawn import SpawnConfig
from agentpool.abc import AgentContext, Driver, DriverFactory, Memory, Observer
from agentpool.drivers._local_weights import (
    check_weights,
    find_cached_weights,
    find_packaged_weights,
)
from agentpool.memory import InMemoryMemory
from agentpool.tools import EMPTY_REGISTRY, ToolRegistry, memory_tools
from agentpool.tools._team import TEAM_TOOLS

DriverOpener: TypeAlias = Callable[[ModelConfig], AbstractAsyncContextManager[Driver]]
"""Opens the driver of a model for as long as its block lasts."""

BASE_URL_ENVS: Final[Mapping[str, str]] = {
    "openai": "OPENAI_BASE_URL",
    "anthropic": "ANTHROPIC_BASE_URL",
}
"""Where ``--driver`` looks for a server if the manifest names none. The names are the ones
that other clients of these interfaces use."""

KEY_ENVS: Final = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
"""Where the providers' keys are unless a manifest says otherwise."""

_SHORTEST_SECRET: Final = 8
"""A shorter value is no key, and to blot it out would garble ordinary text."""

_TEAM_KINDS: Final = frozenset({CapabilityKind.MESSAGE, CapabilityKind.SPAWN})
"""The grants for which the team tools are."""

_WITH_TOOLS: Final = _TEAM_KINDS | {CapabilityKind.MEMORY}
"""The grants for which there are tools here."""


@final
@attrs.frozen(kw_only=True)
class Override:
    """What goes before a manifest's own words."""

    model: str | None = None
    """A GGUF file, or a provider's name of a model. ``None``: the manifest's model."""
    driver: str | None = None
    """``local``, ``openai`` or ``anthropic``. ``None``: what the manifest's model needs."""
    max_tokens: int | None = None
    """The most tokens of one answer. ``None``: the manifest's number."""

    def apply(
        self, manifest: AgentManifest, *, source: str, environ: Mapping[str, str]
    ) -> AgentManifest:
        """Return *manifest* with this in it.

        Args:
            manifest: What the file says.
            source: What an error calls the manifest.
            environ: The environment, for the address of a server.

        Raises:
            UsageError: If the words make no sense together.
            ManifestError: If the manifest does not allow the result.
        """
        try:
            model = self._model(manifest.model, environ)
            if self.max_tokens is not None:
                model = attrs.evolve(model, max_tokens=self.max_tokens)
            return attrs.evolve(manifest, model=model)
        except ManifestError as error:
            raise ManifestError(error.faults, source=f"{source}, changed by options") from error

    def _model(self, model: ModelConfig, environ: Mapping[str, str]) -> ModelConfig:
        if self.driver is None and self.model is None:
            return model
        provider = PROVIDERS.get(self.driver or "")
        if provider is not None:
            return self._remote(model, provider, environ)
        if self.driver == "local":
            return _local(model, self.model)
        assert self.model is not None  # noqa: S101  # or the first test would have held
        if self.model.endswith(".gguf") or os.path.isfile(self.model):  # noqa: PTH113  # a word, not yet a path
            return _local(model, self.model)
        if model.remote_model is not None:
            return attrs.evolve(model, remote_model=self.model)
        raise UsageError(
            f"--model must be a GGUF file for a local model, got {self.model!r}; for a model "
            "behind an API add --driver openai"
        )

    def _remote(
        self, model: ModelConfig, provider: Provider, environ: Mapping[str, str]
    ) -> ModelConfig:
        name = self.model or model.remote_model
        if name is None:
            raise UsageError(
                f"--driver {provider} needs a model's name, and the manifest has no remote_model; "
                "add --model NAME"
            )
        was_there = model.remote_model is not None and model.provider == provider
        url = model.base_url if was_there else None
        return attrs.evolve(
            model,
            model_path=None,
            model_repo=None,
            model_quantization=None,
            remote_model=name,
            provider=provider,
            base_url=url or _base_url_of(provider, environ),
            private_host=model.private_host and url is not None,
            api_key_env=model.api_key_env if was_there else None,
        )


def _base_url_of(provider: Provider, environ: Mapping[str, str]) -> str | None:
    url = environ.get(BASE_URL_ENVS[provider], "").rstrip("/")
    # Anthropic's own clients want it without the version, and ours with it.
    if url and provider == "anthropic" and not url.endswith("/v1"):
        url += "/v1"
    return url or None


def _local(model: ModelConfig, path: str | None) -> ModelConfig:
    """Return *model* as a local one; without *path* the manifest's own, or the packaged one."""
    own = attrs.evolve(
        model,
        remote_model=None,
        provider="openai",
        base_url=None,
        private_host=False,
        api_key_env=None,
    )
    if path is None:
        return own
    return attrs.evolve(own, model_path=path, model_repo=None, model_quantization=None)


@asynccontextmanager
async def open_drivers(
    manifests: Iterable[AgentManifest],
    *,
    open_one: DriverOpener | None = None,
    stand_in: Driver | None = None,
) -> AsyncGenerator[DriverFactory, None]:
    """Open one driver for each model that *manifests* name.

    Args:
        manifests: Whose models to open.
        open_one: Opens one of them. ``None``: ``agentpool.drivers.open_driver``.
        stand_in: Answers in place of every model, which is then not opened.

    Yields:
        What chooses the driver of an agent, for ``open_pool``.

    Raises:
        DriverError: If a model cannot be opened; says what is missing.
    """
    opened: dict[tuple[object, ...], Driver] = {}
    async with AsyncExitStack() as stack:
        for manifest in () if stand_in is not None else manifests:
            key = _identity(manifest.model)
            if key not in opened:
                # Looked up here, since it loads httpx, which a script has no use for.
                opening = (open_one or drivers.open_driver)(manifest.model)
                opened[key] = await stack.enter_async_context(opening)

        def choose(manifest: AgentManifest) -> Driver:
            driver = stand_in or opened.get(_identity(manifest.model))
            if driver is None:
                raise UsageError(
                    f"the model of manifest {manifest.name!r} is not open; give the manifest "
                    "to open_drivers()"
                )
            return driver

        yield choose


def _identity(model: ModelConfig) -> tuple[object, ...]:
    """Return what makes *model* another one, leaving out how it is asked."""
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
    )


def check_spawns(manifests: Iterable[AgentManifest], choose: DriverFactory) -> None:
    """Refuse manifests that a pool would refuse later, before anything has run.

    Raises:
        ManifestError: If a manifest cannot work with its driver.
        PrivacyError: If a manifest's tier forbids its driver.
    """
    for manifest in manifests:
        driver_for(SpawnConfig(manifest, "?"), choose, EMPTY_REGISTRY)


@asynccontextmanager
async def open_furnished_pool(
    choose: DriverFactory,
    *,
    max_concurrent: int,
    max_queued: int,
    observers: Sequence[Observer] = (),
    name: str = "pool",
) -> AsyncGenerator[AgentPool, None]:
    """Open a pool whose agents have the memory and the tools that their manifests grant.

    Args:
        choose: The drivers.
        max_concurrent: Agents that run at the same time.
        max_queued: Agents that may wait for their first slot.
        observers: Called with every event.
        name: What the pool is called.

    Yields:
        The pool.
    """
    memory = InMemoryMemory()
    async with open_pool(
        choose,
        max_concurrent=max_concurrent,
        max_queued=max_queued,
        memory=memory,
        tools=build_tools(memory),
        observers=observers,
        name=name,
    ) as pool:
        yield pool


def build_tools(memory: Memory) -> ToolBuilder:
    """Return what makes the tools of one agent: those that its manifest grants.

    Args:
        memory: The pool's memory.
    """
    team = ToolRegistry(TEAM_TOOLS)

    def build(context: AgentContext) -> ToolRegistry:
        kinds = {grant.kind for grant in context.manifest.capabilities}
        registry = team if kinds & _TEAM_KINDS else EMPTY_REGISTRY
        if CapabilityKind.MEMORY not in kinds:
            return registry
        tools = memory_tools(memory, context.memory_scope, clock=context.seconds)
        return registry.with_tools(*tools)

    return build


def missing_tools(manifest: AgentManifest) -> tuple[str, ...]:
    """Return what *manifest* grants and nothing here can do, in words.

    The grants of a manifest that says nothing about them are left out.
    """
    missing: list[str] = []
    # Whoever wrote no grants has these, and did not ask for anything.
    if manifest.capabilities != DEFAULT_CAPABILITIES:
        missing.extend(
            f"grants {str(grant)!r}, for which this version has no tool"
            for grant in manifest.capabilities
            if grant.kind not in _WITH_TOOLS
        )
    missing.extend(
        f"names the MCP server {server.name!r}, which this version does not start"
        for server in manifest.mcp_servers
    )
    return tuple(missing)


def find_model_file(model: ModelConfig, *, environ: Mapping[str, str]) -> Path | None:
    """Return the file of a local model, after a look at how it begins.

    ``None``: the model is behind an API and has no file here.

    Raises:
        UnknownModelError: If it is not there, or is no model. Says what to do.
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
    names = {*KEY_ENVS, *(manifest.model.api_key_env for manifest in manifests)} - {None}
    found = {environ.get(name or "", "") for name in names}
    return tuple(sorted((f for f in found if len(f) >= _SHORTEST_SECRET), key=len, reverse=True))

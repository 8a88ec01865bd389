"""Checks before a pool opens or accepts an agent, without waiting."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Final, TypeAlias, cast, final

from agentpool._agent.agent import output_of, room_tokens
from agentpool._attachments import Attachment, size_trouble
from agentpool._base import Live
from agentpool._budget.budget import Budget
from agentpool._checks import at_least, expect, expect_each, plain_text
from agentpool._errors import Fault, ManifestError, PrivacyError, UsageError
from agentpool._manifest.manifest import AgentManifest
from agentpool._manifest.parts import DEFAULT_NAME
from agentpool._messages import answer_tokens
from agentpool._opening import Opening
from agentpool._pool.record import AgentRecord
from agentpool._scheduling.ctrl_c import interruptible
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver, DriverFactory
from agentpool.abc._driver_facts import check_facts
from agentpool.tools._registry import ToolRegistry


@final
class Entry(Live):
    """The requirements for every agent of one pool: driver, tools and budget."""

    _source: Driver | DriverFactory
    """The pool's driver, or a function that chooses one."""
    _registry: ToolRegistry
    """The tools, as far as they are known before an agent starts."""
    _budget_of: Callable[[SpawnConfig], Budget | None]
    """Returns the budget that an agent would draw on; raises if the agent may not draw on it."""
    _fitting: tuple[AgentManifest | None, Driver | None] = (None, None)
    """The last manifest that passed the check, and its driver: many agents in a row have the same
    manifest."""

    def driver_for(self, config: SpawnConfig, above: AgentManifest | None) -> Driver:
        """Return the driver of an agent, or raise if it cannot be accepted now.

        Args:
            config: The agent.
            above: The manifest with the laxest tier that the agent may have. ``None``: any tier.

        Raises:
            UsageError: If its budget is not a part of its parent's or pool's, or as in
                `checked_driver`.
            PrivacyError: If the manifest's tier forbids the driver, or is laxer than *above*.
            ManifestError: If the driver's window leaves no room for the query.
        """
        kind: object = type(config)
        if kind is not SpawnConfig:
            check_config(config)
        if above is not None:
            check_child_tier(above, config.manifest)
        if config.budget is not None:
            self._budget_of(config)
        manifest, driver = self._fitting
        if config.manifest is manifest and config.output_type is None and not config.attachments:
            assert driver is not None  # noqa: S101  # it was noted with its manifest
            return driver
        driver = checked_driver(config, self._source, self._registry)
        if driver is self._source:  # a factory is asked each time
            self._fitting = (config.manifest, driver)
        return driver


def check_config(config: SpawnConfig) -> None:
    """Refuse anything but a SpawnConfig.

    Raises:
        UsageError: If it is something else.
    """
    expect(
        config, SpawnConfig, "config must be a SpawnConfig", "write SpawnConfig(manifest, query)"
    )


Wanted: TypeAlias = tuple[AgentRecord | None, list[SpawnConfig], list[Driver]]
"""The agent that wants others (``None``: the owner does), their configs, and the driver of each."""

Queries: TypeAlias = Iterable[str] | AsyncIterable[str]
"""The queries for ``pool.map``: any texts, even if they arrive one after the other."""

_MAP_ADVICE: Final = "write pool.map(manifest, [query, ...])"


def check_source(source: object) -> None:
    """Refuse anything but an iterable of queries for a map.

    Raises:
        UsageError: If it is something else, such as a single text.
    """
    if not isinstance(source, AsyncIterable):
        expect_each(source, str, "a source of map() must be an iterable of queries", _MAP_ADVICE)


def check_map(
    manifest: object,
    sources: Sequence[object],
    retries: int,
    ordered: object,
    config_of: Callable[[str], SpawnConfig],
) -> SpawnConfig:
    """Return what *config_of* makes of a query, or raise if these cannot make a map.

    Raises:
        UsageError: If one of them is of the wrong kind, there is no source, or a number is
            invalid.
    """
    at_least(0, "retries", retries)
    if not sources:
        raise UsageError("map() needs at least one source of queries, got none")
    expect(
        manifest, AgentManifest, "manifest must be an AgentManifest",
        "read a file with AgentManifest.load(path)",
    )  # fmt: skip
    expect(ordered, bool, "ordered must be a bool", "write ordered=True")
    config = config_of("each query")  # raises if a term of the agents is wrong
    output_of(config)
    for source in sources:
        check_source(source)
    return config


def check_query(query: object) -> str:
    """Return *query* as plain text. Refuse anything but text as a query of a map.

    Raises:
        UsageError: If it is something else. Says where a SpawnConfig belongs.
    """
    is_config = isinstance(query, SpawnConfig)
    advice = "pool.fan_out(configs) takes SpawnConfig objects" if is_config else _MAP_ADVICE
    expect(query, str, "a source of map() must give queries, each a str", advice)
    return plain_text(cast("str", query))


def _no_driver(manifest: AgentManifest, driver: object) -> UsageError:
    given = driver
    got = given.advice if isinstance(given, Opening) else repr(driver)
    if inspect.iscoroutine(driver):
        driver.close()  # or Python warns that it was never awaited
        got = "a coroutine: an async function cannot choose drivers"
    return UsageError(
        f"the driver of manifest {manifest.name!r} must be a Driver, got {got}; "
        "return one from the factory; a function that answers is FunctionDriver(f)"
    )


@interruptible
def checked_driver(
    config: SpawnConfig, source: Driver | DriverFactory, registry: ToolRegistry
) -> Driver:
    """Return the driver of an agent, or raise if it cannot be accepted.

    Args:
        config: The agent.
        source: The pool's driver, or a function that chooses one.
        registry: The tools, as far as they are known before the agent starts.

    Raises:
        UsageError: If the factory did not return a driver, the output type has no JSON form, or
            the model does not read an attachment.
        PrivacyError: If the manifest's tier forbids the driver.
        ManifestError: If the driver's window leaves no room for the query.
    """
    output_of(config)
    manifest = config.manifest
    driver = source if isinstance(source, Driver) else source(manifest)
    # A factory is foreign code, and type checkers are optional.
    if not isinstance(driver, Driver):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _no_driver(manifest, driver)
    check_facts(driver)
    if not manifest.privacy.allows(driver.privacy):
        raise PrivacyError(
            f"manifest {manifest.name!r} is {manifest.privacy.value}, but its driver is "
            f"{driver.privacy.value}; use a local model, or a laxer privacy in the manifest"
        )
    for one in config.attachments:
        if driver.inputs is not None and one.kind not in driver.inputs:
            raise UsageError(_unread(manifest, one))
        if trouble := size_trouble(one, driver.most_image_bytes, driver.most_image_pixels):
            raise UsageError(f"{one.name or 'an image'} {trouble}; make it smaller")
    room = room_tokens(driver, config, registry)
    if room is not None and room <= 0:
        window = driver.context_window or manifest.model.context_window
        fault = Fault(
            "model.max_tokens",
            f"{answer_tokens(manifest.model.max_tokens, window)} leaves no room for the query in "
            f"a window of {window} tokens (after the system prompt and tools); set a smaller one",
        )
        raise ManifestError([fault], source=manifest.name)
    return driver


def _unread(manifest: AgentManifest, one: Attachment) -> str:
    """Return the text of the error that the model of *manifest* does not read *one*."""
    model = manifest.model
    is_named = model.remote_model or model.model_path or model.model_repo
    which = f" {model.words}" if is_named else ""
    whose = "" if manifest.name == DEFAULT_NAME else f" of manifest {manifest.name!r}"
    ways = "leave it out, or choose a model that reads it"
    if model.remote_model is not None:
        ways = (
            "leave it out, choose a model that reads it, or, if this one does, write inputs = "
            f'["{one.kind}"] in [model]'
        )
    kind = f"attachments of kind {one.kind!r}"
    return f"the model{which}{whose} cannot read {kind}, got {one!r}; {ways}"


def check_child_tier(parent: AgentManifest, child: AgentManifest) -> None:
    """Raise if the data of an agent with manifest *parent* must not reach one with *child*.

    Raises:
        PrivacyError: If the child's tier is laxer.
    """
    if not parent.privacy.allows(child.privacy):
        raise PrivacyError(
            f"manifest {parent.name!r} is {parent.privacy.value}, and that of its child, "
            f"{child.name!r}, is {child.privacy.value}; give the child a tier that is as strict"
        )


def budget_for(config: SpawnConfig, inherited: Budget | None) -> Budget | None:
    """Return the budget of an agent, or raise if it cannot be accepted.

    Args:
        config: The agent.
        inherited: The budget of its parent or, without a parent, of its pool.

    Raises:
        UsageError: If the agent's own budget is not a part of *inherited*.
    """
    own = config.budget
    if own is None:
        return inherited
    if inherited is not None and not own.is_within(inherited):
        raise UsageError(
            f"budget {own.name!r} of agent {config.agent_name!r} is not part of budget "
            f"{inherited.name!r}, which it must keep to; make it with parent="
        )
    return own

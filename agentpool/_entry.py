"""What is checked before a pool opens or accepts an agent: everything that needs no waiting."""

from __future__ import annotations

from agentpool._agent import output_of, room_tokens
from agentpool._budget import Budget
from agentpool._errors import Fault, ManifestError, PrivacyError, UsageError
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver, DriverFactory
from agentpool.tools._registry import ToolRegistry


def at_least(least: int, name: str, number: object) -> int:
    """Return *number*, a whole one and not below *least*, or raise.

    Raises:
        UsageError: If it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < least:
        raise UsageError(f"{name} must be a whole number >= {least}, got {number!r}")
    return number


def driver_for(
    config: SpawnConfig, source: Driver | DriverFactory, registry: ToolRegistry
) -> Driver:
    """Return the driver of an agent that may be accepted.

    Args:
        config: The agent.
        source: The pool's driver, or what chooses one.
        registry: The tools, as far as they are known before the agent starts.

    Raises:
        UsageError: If the factory returned something else, or the output type has no form.
        PrivacyError: If the manifest's tier forbids the driver.
        ManifestError: If the driver's window leaves no room for the query.
    """
    output_of(config)
    manifest = config.manifest
    driver = source if isinstance(source, Driver) else source(manifest)
    # A factory is somebody else's code, and type checkers are optional.
    if not isinstance(driver, Driver):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            f"the driver of manifest {manifest.name!r} must be a Driver, got {driver!r}; "
            "return one from the factory"
        )
    if not manifest.privacy.allows(driver.privacy):
        raise PrivacyError(
            f"manifest {manifest.name!r} is {manifest.privacy.value}, its driver is "
            f"{driver.privacy.value}; use a local model, or a laxer privacy in the manifest"
        )
    room = room_tokens(driver, config, registry)
    if room is not None and room <= 0:
        fault = Fault(
            "model.max_tokens",
            f"{manifest.model.max_tokens} leaves no room for the query in a window of "
            f"{driver.context_window or manifest.model.context_window} tokens (system "
            "prompt and tools taken off); write a smaller one",
        )
        raise ManifestError([fault], source=manifest.name)
    return driver


def budget_for(config: SpawnConfig, inherited: Budget | None) -> Budget | None:
    """Return what an agent that may be accepted spends of.

    Args:
        config: The agent.
        inherited: What its parent spends of, or else its pool.

    Raises:
        UsageError: If the agent's own budget is not a part of that one.
    """
    own = config.budget
    if own is None:
        return inherited
    if inherited is not None and not own.is_within(inherited):
        raise UsageError(
            f"budget {own.name!r} of agent {config.agent_name!r} is no part of budget "
            f"{inherited.name!r}, which it must keep to; make it with parent="
        )
    return own

"""Reads the parts of a manifest in TOML, and notes the faults of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, final

import attrs
import msgspec

from agentpool._budget.period import Period
from agentpool._errors import Fault
from agentpool._manifest.budget import DEFAULT_NAME as BUDGET_NAME
from agentpool._manifest.budget import BudgetConfig
from agentpool._manifest.capability import (
    DEFAULT_CAPABILITIES,
    SCOPE_KEYS,
    Capability,
    CapabilityKind,
    PrivacyTier,
)
from agentpool._manifest.context import ContextConfig, ContextStrategy
from agentpool._manifest.mcp import read_server
from agentpool._manifest.model import ModelConfig, TokenPrice
from agentpool._manifest.model_table import read_model
from agentpool._manifest.parts import DEFAULT_NAME, DEFAULT_VERSION, McpServerConfig, ResourceQuota
from agentpool._manifest.providers import Provider
from agentpool._manifest.toml_table import AT_THE_TOP, TomlTable, words_of


def _keys(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in attrs.fields(cls))


_PERIODS: Final[Mapping[str, Period]] = words_of(Period)
_STRATEGIES: Final[Mapping[str, ContextStrategy]] = words_of(ContextStrategy)
_TIERS: Final = {tier.value: tier for tier in PrivacyTier}
_KINDS: Final = {kind.value: kind for kind in CapabilityKind}
_GRANT_KEYS: Final = (
    *dict.fromkeys(SCOPE_KEYS.values()),
    "server",
    "tool",
    "max_depth",
    "ask_first",
)
_HOMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(_GRANT_KEYS, "in a [[capabilities]] table"),
    **dict.fromkeys(("transport", "command", "url", "env"), "in an [[mcp_servers]] table"),
    **dict.fromkeys(_keys(TokenPrice), "in a [model.price] table"),
    **dict.fromkeys(_keys(ModelConfig), "in [model]"),
    **dict.fromkeys(_keys(ResourceQuota), "in [resources]"),
    **dict.fromkeys(_keys(ContextConfig), "in [context]"),
    **dict.fromkeys(("per", "tokens", "cost_usd", "requests", "tool_calls"), "in [budget]"),
}


@final
class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says. ``None`` stands for a part with faults, and for a missing budget."""

    name: str
    version: str
    description: str
    privacy: PrivacyTier
    model: ModelConfig | None
    resources: ResourceQuota | None
    context: ContextConfig | None
    budget: BudgetConfig | None
    capabilities: tuple[Capability | None, ...]
    mcp_servers: tuple[McpServerConfig | None, ...]
    faults: list[Fault]


def read_parts(
    text: str, sections: Iterable[str], *, source: str, providers: Mapping[str, Provider]
) -> Parts:
    """Return the parts of the manifest in *text*.

    Args:
        text: TOML.
        sections: The keys of a manifest.
        source: The name of the manifest in errors.
        providers: The providers that the model may name.

    Raises:
        ManifestError: If *text* is not TOML.
    """
    homes = {**_HOMES, **dict.fromkeys(sections, AT_THE_TOP)}
    top = TomlTable.parse(text, source=source)
    parts = Parts(
        name=top.text("name", DEFAULT_NAME),
        version=top.text("version", DEFAULT_VERSION),
        description=top.text("description", ""),
        privacy=top.choice("privacy", _TIERS, PrivacyTier.SOVEREIGN),
        model=read_model(top.table("model"), homes, providers),
        resources=_read_resources(top.table("resources"), homes),
        context=_read_context(top.table("context"), homes),
        budget=_read_budget(top.table("budget"), homes, is_there="budget" in top.values),
        capabilities=_read_capabilities(top.tables("capabilities"), homes),
        mcp_servers=tuple(
            table and read_server(table, homes) for table in top.tables("mcp_servers") or ()
        ),
        faults=top.faults,
    )
    top.close(homes)
    return parts


def _read_budget(
    table: TomlTable, homes: Mapping[str, str], *, is_there: bool
) -> BudgetConfig | None:
    """Return the budget in *table*. ``None``: it is missing, or has faults, which are noted.

    Args:
        table: The manifest's ``[budget]``.
        homes: Keys that belong elsewhere in the file, each with its place, for advice.
        is_there: Whether the manifest has that table.
    """
    if not is_there:
        return None
    table.require("per", f"write one of {', '.join(_PERIODS)}")
    per: Period | None = table.choice("per", _PERIODS, None)
    terms = {
        "tokens": table.integer("tokens", None),
        "requests": table.integer("requests", None),
        "tool_calls": table.integer("tool_calls", None),
    }
    cost_usd, name = table.number("cost_usd", None), table.text("name", BUDGET_NAME)
    budget = None
    if per is not None:
        budget = table.build(BudgetConfig, per=per, cost_usd=cost_usd, name=name, **terms)
    table.close(homes)
    return budget


def _read_context(table: TomlTable, homes: Mapping[str, str]) -> ContextConfig | None:
    """Return the settings in *table*. ``None``: it has faults, which are noted.

    Args:
        table: The manifest's ``[context]``.
        homes: Keys that belong elsewhere in the file, each with its place, for advice.
    """
    strategy: ContextStrategy = table.choice("strategy", _STRATEGIES, ContextConfig().strategy)
    context = table.build(ContextConfig, strategy=strategy)
    table.close(homes)
    return context


def _read_resources(table: TomlTable, homes: Mapping[str, str]) -> ResourceQuota | None:
    default = ResourceQuota()
    resources = table.build(
        ResourceQuota,
        max_iterations=table.integer("max_iterations", default.max_iterations),
        max_tool_calls=table.integer("max_tool_calls", default.max_tool_calls),
        max_cost_usd=table.number("max_cost_usd", default.max_cost_usd),
        max_tokens_budget=table.integer("max_tokens_budget", None),
        max_repeated_calls=table.integer("max_repeated_calls", default.max_repeated_calls),
        run_seconds=table.number("run_seconds", None),
        request_seconds=table.number("request_seconds", None),
        tool_seconds=table.number("tool_seconds", default.tool_seconds),
        approval_seconds=table.number("approval_seconds", default.approval_seconds),
    )
    table.close(homes)
    return resources


def _read_capabilities(
    tables: tuple[TomlTable | None, ...] | None, homes: Mapping[str, str]
) -> tuple[Capability | None, ...]:
    if tables is None:
        return DEFAULT_CAPABILITIES
    return tuple(table and _read_capability(table, homes) for table in tables)


def _read_capability(table: TomlTable, homes: Mapping[str, str]) -> Capability | None:
    words = ", ".join(_KINDS)
    table.require("type", f"write one of {words}")
    kind = table.choice("type", _KINDS, None)
    match kind:
        case None:
            # Of what type it was meant to be is not known, so every key may be right.
            table.close(homes, also=_GRANT_KEYS)
            return None
        case CapabilityKind.MCP:
            table.require("server", "write its name, or '*' for all")
            table.require("tool", "write its name, or '*' for all")
            scope = (table.text("server", ""), table.text("tool", ""))
            grant = Capability(kind, scope)
        case CapabilityKind.SPAWN:
            table.require("max_depth", "write how many generations of children")
            grant = Capability.spawn(table.integer("max_depth", 0))
        case kind if kind in SCOPE_KEYS:
            grant = Capability(kind, table.texts(SCOPE_KEYS[kind]))
        case _:
            grant = Capability(kind)
    grant = attrs.evolve(grant, ask_first=table.flag("ask_first", default=False))
    # A key of another type of grant is wrong here, and at home nowhere else.
    table.close({key: homes[key] for key in homes if key not in _GRANT_KEYS})
    return grant

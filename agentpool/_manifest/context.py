"""How an agent shortens a conversation that outgrows the model's window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, final

import attrs

from agentpool._base import Value
from agentpool._checks import Checked
from agentpool._manifest.toml_table import TomlTable, words_of

ContextStrategy: TypeAlias = Literal["drop", "clear_results", "summary"]
"""How to shorten a full window: see ``ContextConfig``."""

STRATEGIES: Final[Mapping[str, ContextStrategy]] = words_of(ContextStrategy)


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContextConfig(Value, Checked):
    """How a conversation is shortened to fit the model's window."""

    strategy: ContextStrategy = "drop"
    """``"drop"`` leaves out the oldest turns; ``"clear_results"`` first replaces old tool results
    by stubs; ``"summary"`` lets the model summarize what is left out, at the agent's cost."""


def read_context(table: TomlTable, homes: Mapping[str, str]) -> ContextConfig | None:
    """Return the settings in *table*. ``None``: it has faults, which are noted.

    Args:
        table: The manifest's ``[context]``.
        homes: Keys that belong elsewhere in the file, each with its place, for advice.
    """
    strategy: ContextStrategy = table.choice("strategy", STRATEGIES, ContextConfig().strategy)
    context = table.build(ContextConfig, strategy=strategy)
    table.close(homes)
    return context

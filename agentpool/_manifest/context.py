"""How an agent shortens a conversation that outgrows the model's window."""

from __future__ import annotations

from typing import Literal, TypeAlias, final

import attrs

from agentpool._base import Value
from agentpool._checks import Checked

ContextStrategy: TypeAlias = Literal["drop", "clear_results", "summary"]
"""How to shorten a full window: see ``ContextConfig``."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class ContextConfig(Value, Checked):
    """How a conversation is shortened to fit the model's window."""

    strategy: ContextStrategy = "drop"
    """``"drop"`` leaves out the oldest turns; ``"clear_results"`` first replaces old tool results
    by stubs; ``"summary"`` lets the model summarize what is left out, at the agent's cost."""

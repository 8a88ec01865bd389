"""The limit on what all agents of a manifest may spend per hour, day or month."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, final

import attrs

from agentpool._base import Value
from agentpool._budget.period import Period
from agentpool._checks import expect_fields
from agentpool._errors import Fault, ManifestError
from agentpool._manifest.parts import count_faults
from agentpool._manifest.toml_table import TomlTable, shown, words_of
from agentpool._numbers import is_number

_PERIODS: Final[Mapping[str, Period]] = words_of(Period)

DEFAULT_NAME: Final = "agents"
"""The name of a budget for which the manifest gives none."""


@final
@attrs.frozen(kw_only=True, eq=False, repr=False)
class BudgetConfig(Value):
    """What the agents of a pool may spend together per period, over all processes.

    It holds for every pool, and every command, that has an agent of the manifest and stores the
    spending in the same file.
    """

    per: Period
    """``hour``, ``day`` or ``month``, which begin in UTC, or ``ever``."""
    tokens: int | None = None
    """Tokens in plus tokens out. ``None``: no limit. The same holds for the limits below."""
    cost_usd: float | None = None
    """US dollars."""
    requests: int | None = None
    """Requests to a model, retries included."""
    tool_calls: int | None = None
    """Tool calls that run."""
    name: str = DEFAULT_NAME
    """The name in the file and in errors. Manifests with the same name share the budget."""

    def __attrs_post_init__(self) -> None:
        """Refuse limits that are not positive numbers, and a budget without limits."""
        expect_fields(self, but=("per", "tokens", "cost_usd", "requests", "tool_calls"))
        if faults := tuple(self._faults()):
            raise ManifestError(faults, source="BudgetConfig")

    def _faults(self) -> list[Fault]:
        faults = list[Fault]()
        if self.per not in tuple(_PERIODS):
            faults.append(Fault("per", f"must be one of {', '.join(_PERIODS)}, got {self.per!r}"))
        counts = {"tokens": self.tokens, "requests": self.requests, "tool_calls": self.tool_calls}
        for path, value in counts.items():
            if value is not None:
                faults.extend(count_faults(path, value))
        cost = self.cost_usd
        if cost is not None and not (is_number(cost) and 0 < cost < float("inf")):
            faults.append(Fault("cost_usd", f"must be a finite number > 0, got {shown(cost)}"))
        if cost is None and not any(value is not None for value in counts.values()):
            faults.append(
                Fault("cost_usd", "is missing; write it, or tokens, requests or tool_calls")
            )
        if not self.name.strip() or not self.name.isprintable():
            faults.append(Fault("name", f"must be one line of printable text, got {self.name!r}"))
        return faults


def read_budget(
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
    cost_usd, name = table.number("cost_usd", None), table.text("name", DEFAULT_NAME)
    budget = None
    if per is not None:
        budget = table.build(BudgetConfig, per=per, cost_usd=cost_usd, name=name, **terms)
    table.close(homes)
    return budget

"""The limit on what all agents of a manifest may spend per hour, day or month."""

from __future__ import annotations

from typing import Final, final, get_args

import attrs

from agentpool._base import Value
from agentpool._budget.period import Period
from agentpool._checks import expect_fields
from agentpool._errors import Fault, ManifestError
from agentpool._manifest.parts import count_faults, shown
from agentpool._numbers import is_number

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
        if self.per not in get_args(Period):
            words = ", ".join(get_args(Period))
            faults.append(Fault("per", f"must be one of {words}, got {self.per!r}"))
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

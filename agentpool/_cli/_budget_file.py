"""The file that keeps what commands spend per hour, day or month."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias, final

import attrs

from agentpool import AgentManifest, Budget
from agentpool import journal as journals
from agentpool._cli._command import Options
from agentpool.abc import BudgetStore, Correction, StoredUse

_Amounts: TypeAlias = tuple[int, int, int, int]
_Limits: TypeAlias = tuple[int | None, int | None, int | None, int | None]


@final
@attrs.define(eq=False)
class BudgetFile(BudgetStore):
    """Keeps what is spent, in the command's journal or in a separate file.

    Budgets can be made with this store before the file is open.
    """

    _options: Options
    _store: BudgetStore | None = None
    """The open file. ``None``: the file is not open."""
    _is_shared: bool = attrs.field(default=False, alias="is_shared")
    """Whether several processes run this command."""
    budget: Budget | None = attrs.field(init=False)
    """The budget that all agents of the command share. ``None``: nothing is limited."""

    def __attrs_post_init__(self) -> None:
        """Make the budget that the options ask for."""
        self.budget = self._options.new_budget(self, is_shared=self._is_shared)

    @asynccontextmanager
    async def opened(
        self, manifests: Sequence[AgentManifest], journal: object
    ) -> AsyncGenerator[None]:
        """Open the file if it is not open, and a limit of the command or of *manifests* needs it.

        Args:
            manifests: The manifests of the agents.
            journal: The journal of the command's pool. If the options name a journal, the spending
                is kept there as well.

        Raises:
            JournalError: If the file cannot be opened.
        """
        is_needed = self._options.per or any(one.budget is not None for one in manifests)
        known = self._store
        if self._options.journal is not None and isinstance(journal, BudgetStore):
            known = journal
        if known is not None or not is_needed:
            self._store = known
            yield
        else:
            async with journals.open_journal(self._options.budget_file) as self._store:
                yield

    @property
    def backing_store(self) -> BudgetStore:
        """The open file. As long as the file is not open, this is the object itself."""
        return self if self._store is None else self._store.backing_store

    def spend(
        self,
        name: str,
        per: Literal["hour", "day", "month", "ever"],
        limits: _Limits,
        wanted: _Amounts,
        corrections: Sequence[Correction],
    ) -> Awaitable[StoredUse]:
        """Spend from the file's budget."""
        assert self._store is not None  # noqa: S101  # agents spend while it is open
        return self._store.spend(name, per, limits, wanted, corrections)

"""The exception group of a pool's failed agents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from agentpool._errors.errors import AgentPoolError, leaves


def _is_part(error: BaseException, whole: BaseException) -> bool:
    """Return whether *error* is *whole*, or a group with a part of its errors."""
    if error is whole:
        return True
    is_inside = set(map(id, leaves(error))) <= set(map(id, leaves(whole)))
    groups = isinstance(error, BaseExceptionGroup) and isinstance(whole, BaseExceptionGroup)
    return groups and is_inside


class PoolError(AgentPoolError, ExceptionGroup[Exception]):
    """Agents failed, and their outcomes were never retrieved.

    It is an ``ExceptionGroup``, so ``except*`` can handle its errors one by one. It also knows
    which agent each error came from.
    """

    by_agent: Mapping[int, Exception]
    """The error of each failed agent, by agent id, in spawn order."""

    def __new__(
        cls,
        message: str,
        errors: Sequence[Exception],
        agent_ids: Sequence[int] = (),  # noqa: ARG004  # for __init__; groups are built in two
    ) -> Self:
        """Make the group. ``__init__`` adds the agents."""
        return super().__new__(cls, message, errors)

    def __init__(
        self, message: str, errors: Sequence[Exception], agent_ids: Sequence[int] = ()
    ) -> None:
        super().__init__(message, errors)
        self.by_agent = dict(zip(agent_ids, errors, strict=False))

    @property
    def first(self) -> Exception:
        """The error of the agent that was spawned first."""
        return self.exceptions[0]

    def derive(self, excs: Sequence[Exception]) -> PoolError:  # type: ignore[override]  # a group of Exceptions stays one
        """Make the group that ``split`` and ``except*`` return, with its agents."""
        # In the order of the whole, so that agents with one and the same error keep it each.
        left = iter(self.by_agent.items())
        ids: list[int] = []
        for error in excs:
            found = next((agent_id for agent_id, whole in left if _is_part(error, whole)), None)
            if found is None:  # not a part of ours: a wrong name would be worse than none
                return PoolError(self.message, excs)
            ids.append(found)
        return PoolError(self.message, excs, ids)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from message, errors and agent ids."""
        return PoolError, (self.message, list(self.exceptions), tuple(self.by_agent))

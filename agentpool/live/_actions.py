"""The actions of a person on the live page."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, assert_never, final

import attrs
import msgspec

from agentpool._approval import Approved, Changed, Decision, Denied
from agentpool._budget.budget import Budget
from agentpool._errors import UsageError
from agentpool._messages import AgentId
from agentpool._pool.pool import AgentPool
from agentpool.live._approvals import ApprovalDesk

BY: Final = "the live page"
"""The name, in agents and traces, of the person who decided or cancelled on the page."""

MAX_SLOTS: Final = 100_000
"""The most slots that a person may set. A higher number is a typing error."""


class _Action(
    msgspec.Struct, frozen=True, tag_field="do", tag=str.lower, forbid_unknown_fields=True
):
    """Base class of the actions."""


@final
class Cancel(_Action, frozen=True):
    """End an agent now."""

    agent: AgentId


@final
class Interrupt(_Action, frozen=True):
    """End an agent after its turn."""

    agent: AgentId


@final
class Abort(_Action, frozen=True):
    """End all agents."""


@final
class Resize(_Action, frozen=True):
    """Change the number of slots."""

    slots: Annotated[int, msgspec.Meta(ge=1, le=MAX_SLOTS)]


@final
class Limit(_Action, frozen=True):
    """Change a limit of the pool's budget."""

    kind: Literal["tokens", "cost_usd", "requests", "tool_calls"]
    limit: float | None


@final
class Approve(_Action, frozen=True):
    """Let a call run."""

    call: int


@final
class Deny(_Action, frozen=True):
    """Refuse a call."""

    call: int
    reason: str = ""


@final
class Change(_Action, frozen=True):
    """Let a call run with other arguments."""

    call: int
    arguments: str


Action: TypeAlias = Cancel | Interrupt | Abort | Resize | Limit | Approve | Deny | Change

_DECODER: Final[msgspec.json.Decoder[Action]] = msgspec.json.Decoder(Action)


@final
@attrs.define(eq=False)
class Hands:
    """Performs actions on the pool."""

    _pool: AgentPool
    _desk: ApprovalDesk | None
    _budget: Budget | None

    def do(self, body: bytes) -> tuple[int, str]:
        """Perform the action in *body*. Return an HTTP status and a text for the person."""
        try:
            return self._do(_DECODER.decode(body))
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            return 400, f"the request names no known action: {error}"
        except UsageError as error:
            return 409, str(error)

    def _do(self, action: Action) -> tuple[int, str]:  # noqa: PLR0911  # one for each kind
        match action:
            case Cancel(agent=agent_id) | Interrupt(agent=agent_id):
                return self._end(action, agent_id)
            case Abort():
                self._pool.abort_all(f"all ended on {BY}")
                return 200, "all agents are ending"
            case Resize(slots=slots):
                self._pool.max_concurrent = slots
                return 200, f"{slots} slots"
            case Limit():
                return self._limit(action)
            case Approve(call=number):
                return self._decide(number, Approved(by=BY))
            case Deny(call=number, reason=reason):
                return self._decide(number, Denied(reason, by=BY))
            case Change(call=number, arguments=arguments):
                value: object = msgspec.json.decode(arguments)
                if not isinstance(value, dict):
                    return 400, 'arguments must be a JSON object, such as {"name": "a.txt"}'
                return self._decide(number, Changed(arguments, by=BY))
            case _:
                assert_never(action)

    def _end(self, action: Cancel | Interrupt, agent_id: AgentId) -> tuple[int, str]:
        handle = self._pool[agent_id]
        if handle.has_ended:
            return 409, f"agent {agent_id} has ended already"
        if isinstance(action, Cancel):
            handle.cancel(f"cancelled on {BY}")
            return 200, f"agent {agent_id} is ending"
        handle.interrupt()
        return 200, f"agent {agent_id} ends after its turn"

    def _limit(self, action: Limit) -> tuple[int, str]:
        if self._budget is None:
            return 409, "the pool has no budget"
        limit = action.limit
        whole = limit is not None and action.kind != "cost_usd" and limit == int(limit)
        self._budget.change_limit(action.kind, int(limit) if whole and limit else limit)
        return 200, "the limit is changed"

    def _decide(self, number: int, decision: Decision) -> tuple[int, str]:
        if self._desk is None or not self._desk.decide(number, decision):
            return 409, "this call was decided already, or no longer waits"
        return 200, "decided"

"""Reports the events of one request: it begins, its first piece arrives, it ends.

A teller is made only for a request that is observed. Once a request has begun, it is reported to
its end, even if it is no longer observed: that costs little, and happens once.
"""

from __future__ import annotations

from typing import Final, final

from agentpool._agent.agent import Agent
from agentpool._budget.reservation import RequestReservation
from agentpool._events import (
    CompletionReceived,
    FellBack,
    GateChanged,
    LostRequest,
    MessagesAdded,
    Phase,
    PhaseChanged,
    RequestFailed,
    RequestFirstPiece,
    RequestStarted,
)
from agentpool._loop.run import Run
from agentpool._loop.window import MessageView
from agentpool._messages import Completion, CompletionRequest, Usage
from agentpool._served_call import Loss


@final
class RequestTeller:
    """Reports all attempts of one request of an agent, and the pieces of the answer.

    It is called with each piece of the answer to a request in the agent's own turn.
    """

    __slots__ = (
        "_agent", "_asked_at", "_attempt", "_began_at", "_by_tool", "_first_piece_seconds",
        "_is_open", "_lost", "_node", "_request", "_request_id", "_turn",
    )  # fmt: skip

    def __init__(
        self,
        agent: Agent,
        request: CompletionRequest,
        turn: int,
        asked_at: float,
        *,
        by_tool: bool = False,
    ) -> None:
        self._agent = agent
        self._turn = turn
        self._request = request
        self._by_tool = by_tool
        self._asked_at = asked_at
        self._attempt = self._request_id = 0
        self._began_at = 0.0
        self._first_piece_seconds: float | None = None
        self._node = ""
        self._lost: tuple[LostRequest, ...] = ()
        self._is_open = False

    def begin(self, paid: RequestReservation | None) -> None:
        """Report that an attempt begins. *paid*: the reservation that pays for it."""
        agent, request = self._agent, self._request
        if self._attempt:
            self._first_piece_seconds, self._node, self._lost = None, "", ()
        self._attempt += 1
        self._is_open = True
        sequence, at_seconds, agent_id, name = agent.hub.stamp(agent.agent_id, agent.name)
        self._request_id, self._began_at = sequence, at_seconds
        view = request.messages
        sent = view.places if type(view) is MessageView and not self._by_tool else ()
        # By place, in the order of the fields: names and a star cost twice as much as the event.
        agent.hub.publish(
            RequestStarted(
                sequence, at_seconds, agent_id, name,
                self._turn, self._attempt, request.model or "", self._by_tool, sent,
                "" if paid is None else paid.budget_name,
                None if paid is None else paid.tokens,
                None if paid is None else paid.cost_usd,
            )
        )  # fmt: skip

    def end(self) -> None:
        """Record that the attempt was answered: a later error does not make it a failed one."""
        self._is_open = False

    def failed(self, error: BaseException) -> None:
        """Report that the attempt failed, unless it was answered or this was reported."""
        if not self._is_open:
            return
        self._is_open = False
        agent = self._agent
        # Only the kind of a cancellation says something; trio keeps its text.
        text = str(error) if isinstance(error, Exception) else "given up"
        agent.hub.publish(
            RequestFailed(
                *agent.hub.stamp(agent.agent_id, agent.name),
                request_id=self._request_id,
                attempt=self._attempt,
                error_type=type(error).__name__,
                error=text,
                by_tool=self._by_tool,
                node=self._node,
                lost=self._lost,
            )
        )

    def __call__(self, text: str) -> None:
        """Record and report a piece of the answer to the agent's own request."""
        self._agent.arrived(text, self)

    def thought(self, text: str) -> None:
        """Report a piece of the model's thoughts."""
        self._agent.thought(text)

    def lose(self, loss: Loss, reserved_usd: float | None = None) -> None:
        """Note the charge for a request that was sent and not answered completely.

        Args:
            loss: What is counted.
            reserved_usd: US dollars that its budget is charged if its cost is unknown.
        """
        is_paid = self._agent.purse is not None
        self._lost += (lost_request(loss, reserved_usd, is_paid=is_paid),)

    def arrived(self) -> None:
        """Report the first piece of the answer, once."""
        if self._first_piece_seconds is None:
            agent = self._agent
            stamp = agent.hub.stamp(agent.agent_id, agent.name)
            self._first_piece_seconds = seconds = stamp[1] - self._began_at
            agent.hub.publish(RequestFirstPiece(*stamp, self._request_id, seconds))

    def gate_changed(
        self, name: str, *, limit: int, in_flight: int, waiting: int, closed_seconds: float
    ) -> None:
        """Report that a refusal has closed a gate, or lowered its limit."""
        stamp = self._agent.hub.stamp(self._agent.agent_id, self._agent.name)
        gate = (limit, in_flight, waiting)
        self._agent.hub.publish(GateChanged(*stamp, name, *gate, closed_seconds))

    def placed(self, node: str) -> None:
        """Note which node of a cluster gets the request."""
        self._node = node

    def fell_back(self, driver: int, error: Exception | None, model: str, next_model: str) -> None:
        """Report that the next of several drivers is asked."""
        agent = self._agent
        kind, text = ("", "") if error is None else (type(error).__name__, str(error))
        stamp = agent.hub.stamp(agent.agent_id, agent.name)
        agent.hub.publish(FellBack(*stamp, driver, driver + 1, kind, text, model, next_model))

    def answered(self, answer: Completion, paid: RequestReservation | None) -> None:
        """Report the answer. *paid*: the reservation that pays for it."""
        agent = self._agent
        usage, cost_usd = answer.usage, answer.cost_usd
        sequence, at_seconds, agent_id, name = agent.hub.stamp(agent.agent_id, agent.name)
        # By place, as above.
        agent.hub.publish(
            CompletionReceived(
                sequence, at_seconds, agent_id, name,
                answer.finish_reason, usage, at_seconds - self._asked_at,
                self._request_id, self._turn, self._attempt or 1,
                answer.model or self._request.model, cost_usd, self._first_piece_seconds,
                self._by_tool, self._node,
                None if paid is None or usage is not None else paid.tokens,
                None if paid is None or cost_usd is not None else paid.cost_usd,
                self._lost,
                at_seconds - self._began_at if self._attempt else None,
            )
        )  # fmt: skip


def lost_request(loss: Loss, reserved_usd: float | None, *, is_paid: bool) -> LostRequest:
    """Return *loss* in the form in which observers get it.

    Args:
        loss: What is counted for a request.
        reserved_usd: US dollars that its budget is charged if its cost is unknown.
        is_paid: Whether a budget pays for it.
    """
    if loss.written is not None:
        charged = (loss.tokens, loss.cost_usd) if is_paid else (None, None)
        return LostRequest(Usage(0, loss.written), loss.price, False, *charged)  # noqa: FBT003  # as declared
    if loss.usage is not None:
        charged_usd = reserved_usd if loss.cost_usd is None else None
        return LostRequest(loss.usage, loss.cost_usd, charged_usd=charged_usd)
    return LostRequest()


_REASON: Final = Phase.REASON  # a member of an enum takes thirty times as long as a name here


def tell_request(agent: Agent, run: Run, request: CompletionRequest) -> RequestTeller:
    """Report what *agent* is about to ask in its turn. Return the teller of the request."""
    assert run.conversation is not None  # noqa: S101  # only a conversation is sent
    turn, told, hub = run.guard.iterations, agent.told, agent.hub
    messages = run.conversation.since(told)
    agent.told = told + len(messages)
    first, at_seconds = hub.stamp_both()
    agent_id, name = agent.agent_id, agent.name
    hub.publish_both(
        PhaseChanged(first, at_seconds, agent_id, name, _REASON, "", turn),
        MessagesAdded(first + 1, at_seconds, agent_id, name, told, messages),
    )
    return RequestTeller(agent, request, turn, at_seconds)

"""The outcome of one agent: its status, text, value and cost."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast, final, is_typeddict

import msgspec
from msgspec.structs import astuple

from agentpool._checks import expect_output_type
from agentpool._errors import LimitExceededError, UsageError
from agentpool._messages import NO_USAGE, AgentId, ChatMessage, Usage
from agentpool._public import refuse_attribute

T = TypeVar("T")


class AgentStatus(enum.Enum):
    """The stage of an agent's life. The last four are final."""

    QUEUED = "queued"
    """Accepted; waits for its first slot."""
    RUNNING = "running"
    """Holds a slot."""
    PARKED = "parked"
    """Gave its slot back while it waits for others."""
    COMPLETED = "completed"
    """The model gave its answer."""
    STOPPED = "stopped"
    """A guard, a budget or a deadline ended it; the stop reason says which."""
    FAILED = "failed"
    """An exception ended it; it is the outcome's ``error``."""
    CANCELLED = "cancelled"
    """It was cancelled; the outcome's error says by whom and why. If its cleanup failed too, the
    error's ``__cause__`` is the error of the cleanup."""


ENDED = frozenset(
    {AgentStatus.COMPLETED, AgentStatus.STOPPED, AgentStatus.FAILED, AgentStatus.CANCELLED}
)
"""The statuses that are final."""


COMPLETED: Final = AgentStatus.COMPLETED
FAILED: Final = AgentStatus.FAILED
CANCELLED: Final = AgentStatus.CANCELLED
"""Most ends. A member of an enum takes twenty times as long as a name of a module."""


class StopReason(enum.Enum):
    """Why a run ended."""

    END_TURN = "end_turn"
    """The model was done."""
    STOP_SEQUENCE = "stop_sequence"
    """The model wrote a stop sequence."""
    MAX_ITERATIONS = "max_iterations"
    """It reached the limit of turns."""
    MAX_TOOL_CALLS = "max_tool_calls"
    """It reached the limit of tool calls."""
    TRUNCATION = "truncation"
    """Its answer was cut at ``max_tokens``; the text so far is kept."""
    TOKEN_BUDGET = "token_budget"  # noqa: S105  # tokens of text, no secret
    """It reached the limit of tokens."""
    COST_BUDGET = "cost_budget"
    """It reached the limit of cost."""
    REQUEST_BUDGET = "request_budget"
    """A budget that it shares allows no more requests."""
    TOOL_CALL_BUDGET = "tool_call_budget"
    """A budget that it shares allows no more tool calls."""
    STUCK = "stuck"
    """It repeated the same tool calls over and over."""
    DEADLINE = "deadline"
    """It reached its deadline."""
    UNKNOWN_OUTCOME = "unknown_outcome"
    """A tool call had begun when the program ended, and may or may not have been done."""
    INTERRUPTED = "interrupted"
    """It was asked to stop after its turn, and did."""


_ADVICE: Final[Mapping[str, str]] = {
    "result": "it is `text`, or `value` with an output_type",
    "output": "it is `text`, or `value` with an output_type",
    "data": "it is `value`, for agents with an output_type",
    "content": "it is `text`",
    "answer": "it is `text`, or `value` with an output_type",
    "response": "it is `text`, or `value` with an output_type",
    "exception": "it is `error`",
    "cost": "it is `cost_usd`",
    "tokens": "they are in `usage`: `usage.total_tokens`",
    "id": "it is `agent_id`",
}
"""The right names for attributes that people may try."""


@final
class AgentOutcome(msgspec.Struct, frozen=True):
    """How one agent ended, and what it produced. Each accepted spawn gets exactly one.

    >>> from agentpool import AgentOutcome, AgentStatus
    >>> outcome = AgentOutcome(agent_id=1, name="reader", status=AgentStatus.COMPLETED, text="42")
    >>> outcome.unwrap()
    '42'

    Copy one with other fields by ``msgspec.structs.replace(outcome, text="...")``. Only an error or
    a value cannot be added so to one that completed with a text: make a new one.
    """

    agent_id: AgentId
    """The agent's number."""
    name: str
    """The agent's name, from its spawn or its manifest."""
    status: AgentStatus
    """``COMPLETED``, ``STOPPED``, ``FAILED`` or ``CANCELLED``."""
    text: str = ""
    """The answer, or the part that had arrived at the end."""
    value: object = None
    """The answer as the ``output_type`` that the spawn asked for. ``None``: it asked for none,
    or the agent did not complete."""
    error: Exception | None = None
    """The error of a stopped, failed or cancelled agent. ``None`` for a completed one."""
    stop_reason: StopReason | None = None
    """Why the run ended. ``END_TURN`` or ``STOP_SEQUENCE`` for a completed one, a limit for a
    stopped one, ``None`` for a failed or cancelled one."""
    over_budget: bool = False
    """Whether the last answer crossed a budget. The answer is complete nevertheless."""
    usage: Usage = NO_USAGE
    """The known tokens of all answers, plus an estimate for the text of requests that broke
    off."""
    repeated_requests: int = 0
    """Requests that were made again after the program had ended in the middle of them: the
    provider may have charged for both."""
    unmeasured_requests: int = 0
    """Requests with unknown usage: the provider did not state it, or the request broke off. If
    there are any, ``usage`` is too low."""
    cost_usd: float | None = None
    """US dollars. ``None``: part of it has no known price. 0.0 is free of charge."""
    iterations: int = 0
    """Model requests, retries not counted."""
    tool_calls: int = 0
    """Tool calls that the model asked for, refused ones included."""
    tool_calls_run: int = 0
    """Tool calls that ran, whatever their result."""
    left_behind: tuple[str, ...] = ()
    """Tool calls that still ran when the agent ended, in threads that cannot be stopped:
    ``name (call id)`` each. Empty unless a tool asked for such threads."""
    messages: tuple[ChatMessage, ...] = ()
    """The conversation, with a result for every tool call."""
    messages_left_out: int = 0
    """How many of the messages no longer fitted into the window at the end: the last requests left
    them out, or had only a stub of them. 0: nothing was left out."""
    started_at: float | None = None
    """Seconds since the pool opened. ``None``: it never had a slot."""
    finished_at: float = 0.0
    """Seconds since the pool opened."""

    if not TYPE_CHECKING:  # a type checker shall know that there is nothing else

        def __getattr__(self, name: str) -> NoReturn:
            """Refuse a missing attribute, with advice."""
            refuse_attribute(self, name, _ADVICE)

    # By the fields alone, for `PLAIN` below.

    def __eq__(self, other: object) -> bool:
        """Return whether *other* is an outcome with the same fields."""
        if not isinstance(other, AgentOutcome):
            return NotImplemented
        return astuple(self) == astuple(other)

    def __hash__(self) -> int:
        """Return a hash that is equal for equal outcomes."""
        return hash(astuple(self))

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the fields."""
        return AgentOutcome, astuple(self)

    def unwrap(self) -> str:
        """Return the text of a completed agent, or raise the error that ended it.

        Raises:
            LimitExceededError: If a guard or a budget stopped it.
            AgentCancelledError: If it was cancelled.
            UsageError: If it was made by hand, without the error that its status needs.
            Exception: The error that it failed with. For an error of an earlier process, see
                ``error``.
        """
        if self.status is AgentStatus.COMPLETED:
            return self.text
        if self.error is None:  # no agent ends so
            raise UsageError(
                f"this outcome of agent {self.agent_id} was made without an error, and its status "
                f"is {self.status.value!r}; give it error=, or the status of a completed one"
            )
        raise self.error

    def unwrap_as(self, output_type: type[T]) -> T:
        """Return the value of a completed agent, or raise the error that ended it.

        Args:
            output_type: The type that it was spawned with.

        Raises:
            UsageError: If its value is of a different type, or it was spawned without a type.
            Exception: What ``unwrap`` raises.
        """
        expect_output_type(output_type)
        self.unwrap()
        # A TypedDict is a plain dict when the program runs.
        kind: type[object] = dict if is_typeddict(output_type) else output_type
        value = self.value
        if not isinstance(value, kind):
            raise UsageError(
                f"the value of agent {self.agent_id} is {type(value).__name__}, not "
                f"{output_type.__name__}; spawn it with output_type={output_type.__name__}"
            )
        return cast("T", value)


def _stay_plain(outcome: AgentOutcome) -> None:
    """Refuse an error and a value: either may refer to *outcome*, which would never be freed."""
    if outcome.error is not None or outcome.value is not None:
        raise UsageError(
            "the outcome of an agent that completed with a text cannot get an error or a value in "
            "a copy by replace(); make a new one: AgentOutcome(**{**msgspec.structs.asdict(outcome)"
            ', "error": error})'
        )


PLAIN: Final = cast(
    "type[AgentOutcome]",
    msgspec.defstruct(
        "AgentOutcome", (), bases=(AgentOutcome,), frozen=True, gc=False, module=__name__,
        namespace={"__post_init__": _stay_plain},
    ),
)  # fmt: skip
"""An outcome without an error or a value, so that nothing in it can refer to it. The garbage
collector need not look at it: at a hundred thousand, that took a tenth of the time of each agent.
"""


@final
class RestartLimitError(LimitExceededError):
    """Supervised agents were restarted too often. All of them have ended."""

    def __init__(
        self, message: str, *, used: float, limit: float, outcomes: Sequence[AgentOutcome]
    ) -> None:
        super().__init__(message, kind="restarts", used=used, limit=limit, source="supervision")
        self.outcomes: tuple[AgentOutcome, ...] = tuple(outcomes)
        """The outcomes of all supervised agents, including restarted ones, in the order of their
        ids."""

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the fields, so that the error survives pickle."""
        make = partial(RestartLimitError, used=self.used, limit=self.limit, outcomes=self.outcomes)
        return make, (str(self),)

"""What became of an agent."""

import pickle
import re

import pytest

from agentpool import AgentCancelledError, AgentOutcome, AgentStatus, LimitExceededError, StopReason
from agentpool._messages import NO_USAGE
from agentpool._outcome import ENDED

ERRORS: dict[AgentStatus, Exception] = {
    AgentStatus.STOPPED: LimitExceededError("x", kind="stuck", used=4, limit=4),
    AgentStatus.FAILED: KeyError("x"),
    AgentStatus.CANCELLED: AgentCancelledError("x", cancelled_by="owner", reason="enough"),
}


def test_a_completed_agent_unwraps_to_its_text() -> None:
    """Also to an empty one: that is what it said."""
    completed = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED, text="")
    assert completed.unwrap() == ""


@pytest.mark.parametrize("status", ERRORS)
def test_every_other_end_unwraps_to_its_error(status: AgentStatus) -> None:
    """As itself, not as a string; the text it had is still there."""
    error = ERRORS[status]
    outcome = AgentOutcome(agent_id=1, name="a", status=status, text="so far", error=error)
    with pytest.raises(type(error)) as caught:
        outcome.unwrap()
    assert caught.value is error
    assert outcome.text == "so far"


def test_the_ends_are_the_statuses_with_an_outcome() -> None:
    """The others go on."""
    assert set(AgentStatus) - ENDED == {
        AgentStatus.QUEUED,
        AgentStatus.RUNNING,
        AgentStatus.PARKED,
    }
    assert {AgentStatus.COMPLETED, *ERRORS} == ENDED


def test_unknown_is_none_and_zero_is_zero() -> None:
    """A cost that nobody can price is not free, and an agent that never ran never began."""
    outcome = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED)
    assert outcome.cost_usd is None
    assert outcome.started_at is None
    assert outcome.usage == NO_USAGE


def test_an_outcome_survives_pickle() -> None:
    """It is what an agent on another machine sends home."""
    outcome = AgentOutcome(
        agent_id=1,
        name="a",
        status=AgentStatus.STOPPED,
        error=ERRORS[AgentStatus.STOPPED],
        stop_reason=StopReason.STUCK,
    )
    again = pickle.loads(pickle.dumps(outcome))
    assert again.stop_reason is StopReason.STUCK
    assert str(again.error) == "x"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("output", "no attribute 'output'; it is `text`, or `value` with an output_type"),
        ("frob", "'AgentOutcome' object has no attribute 'frob'"),
    ],
)
def test_a_name_of_other_libraries_is_answered_with_ours(name: str, says: str) -> None:
    """And any other as Python does."""
    outcome = AgentOutcome(agent_id=1, name="a", status=AgentStatus.COMPLETED)
    with pytest.raises(AttributeError, match=f"{re.escape(says)}$") as caught:
        getattr(outcome, name)
    assert (caught.value.name, caught.value.obj) == (name, outcome)
    assert not hasattr(outcome, name)

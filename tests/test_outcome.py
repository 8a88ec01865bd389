"""What became of an agent."""

import copy
import gc
import pickle
import re
import weakref

import msgspec
import pytest

from agentpool import (
    AgentCancelledError,
    AgentOutcome,
    AgentStatus,
    LimitExceededError,
    StopReason,
    UsageError,
    open_pool,
)
from agentpool._messages import NO_USAGE
from agentpool._outcome import ENDED
from agentpool.drivers import ScriptedDriver
from tests.support.fakes import job

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


async def outcome_of(answer: str | Exception) -> AgentOutcome:
    """Run an agent whose model gives *answer*."""
    async with open_pool(ScriptedDriver([answer])) as pool:
        return await (await pool.spawn(job("go"))).wait()


async def test_an_outcome_of_a_pool_is_like_one_that_is_written_by_hand() -> None:
    """Equal, with the same hash and the same words, also as a copy and out of a file."""
    made = await outcome_of("done")
    assert not gc.is_tracked(made)
    fields = msgspec.structs.asdict(made)
    written = AgentOutcome(**fields)
    assert made == written
    assert written == made
    assert hash(made) == hash(written)
    assert repr(made) == repr(written)
    assert type(pickle.loads(pickle.dumps(made))) is AgentOutcome
    for same in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert same == written
    assert made != msgspec.structs.replace(made, text="other")
    assert made != "done"
    match made:
        case AgentOutcome(text=text, status=AgentStatus.COMPLETED):
            assert text == "done"
        case _:
            pytest.fail("it is no outcome")


async def test_a_plain_outcome_gets_no_error_and_no_value_in_a_copy() -> None:
    """Either may refer to it, and then nothing would free them."""
    made = await outcome_of("done")
    for field in ("error", "value"):
        with pytest.raises(UsageError, match="make a new one"):
            msgspec.structs.replace(made, **{field: ValueError("late")})
    fields = {**msgspec.structs.asdict(made), "error": ValueError("late")}
    assert gc.is_tracked(AgentOutcome(**fields))


async def test_an_outcome_that_its_own_error_refers_to_is_freed() -> None:
    """Raised, the error holds the frames that it came through, and they the outcome."""

    class Odd(Exception):  # noqa: N818  # a name
        """What nobody else raises."""

    def ask(outcome: AgentOutcome) -> None:
        with pytest.raises(Odd):
            outcome.unwrap()

    outcome = await outcome_of(Odd("no"))
    ask(outcome)
    error = weakref.ref(outcome.error) if outcome.error else None
    assert error is not None
    assert error() is not None
    del outcome
    gc.collect()
    assert error() is None


def test_an_outcome_made_without_its_error_says_so() -> None:
    """A copy by ``replace()`` may get any status."""
    outcome = AgentOutcome(agent_id=3, name="a", status=AgentStatus.COMPLETED, text="x")
    odd = msgspec.structs.replace(outcome, status=AgentStatus.FAILED)
    with pytest.raises(UsageError, match="outcome of agent 3 was made without an error"):
        odd.unwrap()

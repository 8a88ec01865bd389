"""Messages and outcomes that leave the process as JSON."""

from __future__ import annotations

import json
import pickle
from typing import Any

import attrs
import pytest
from hypothesis import given

from agentpool import AgentOutcome, AgentStatus, StopReason, UsageError
from agentpool._messages import NO_USAGE
from agentpool.drivers import (
    AssistantMessage,
    ProviderPart,
    RateLimitError,
    ToolCall,
    ToolMessage,
    UserMessage,
    messages_from_json,
    messages_to_json,
)
from agentpool.observe import RecordedError, outcome_from_json, outcome_to_json
from agentpool.testing import strategies

THOUGHT = ProviderPart(
    "api.example", "m", "thinking", '{"type":"thinking","signature":"Eq+/="}', "hm", 3, 1
)
SAID = (
    UserMessage("Hi"),
    AssistantMessage("yes", (ToolCall("c", "add", '{"a": 1.0}'),), (THOUGHT,)),
    ToolMessage("c", "add", "2", is_error=True),
)


def test_a_conversation_comes_back_as_it_went() -> None:
    """With what belongs to its provider, byte for byte."""
    assert messages_from_json(messages_to_json(SAID)) == SAID
    assert messages_from_json(messages_to_json(SAID).encode()) == SAID
    assert [one["role"] for one in json.loads(messages_to_json(SAID))] == [
        "user",
        "assistant",
        "tool",
    ]
    assert pickle.loads(pickle.dumps(SAID)) == SAID


@given(strategies.histories())
def test_every_conversation_comes_back(messages: Any) -> None:  # noqa: ANN401  # whatever is drawn
    """Whatever was said."""
    assert messages_from_json(messages_to_json(messages)) == tuple(messages)


@pytest.mark.parametrize("text", ["{}", '[{"role":"system","text":"x"}]', "[", b"\xff", "[" * 9999])
def test_what_is_no_conversation_is_refused(text: str | bytes) -> None:
    """With the place where it goes wrong."""
    with pytest.raises(UsageError, match="the text is not a conversation"):
        messages_from_json(text)


def outcome(**fields: Any) -> AgentOutcome:  # noqa: ANN401  # any field
    """Return the outcome of an agent that completed, but for *fields*."""
    given: dict[str, Any] = {"agent_id": 1, "name": "a", "status": AgentStatus.COMPLETED}
    return AgentOutcome(**{**given, **fields})


def test_an_outcome_comes_back_as_it_went() -> None:
    """Every field of it."""
    whole = outcome(
        text="yes",
        value={"points": [1, 2.5, None]},
        stop_reason=StopReason.END_TURN,
        usage=NO_USAGE,
        cost_usd=0.25,
        messages=SAID,
        left_behind=("tool (c)",),
        started_at=1.0,
        finished_at=2.0,
    )
    assert outcome_from_json(outcome_to_json(whole)) == whole


def test_an_error_is_data() -> None:
    """Its kind, its text, its fields and where it was raised."""
    try:
        raise RateLimitError("slow down", retry_after_seconds=3.0)  # noqa: TRY301  # for its traceback
    except RateLimitError as exc:
        failed = outcome(status=AgentStatus.FAILED, error=exc)
    again = outcome_from_json(outcome_to_json(failed)).error
    assert isinstance(again, RecordedError)
    assert (again.kind, str(again)) == ("RateLimitError", "slow down")
    assert again.details["retry_after_seconds"] == "3.0"
    assert "test_saved.py" in again.traceback
    # Once more, and nothing is lost.
    twice = outcome_from_json(outcome_to_json(outcome(status=AgentStatus.FAILED, error=again)))
    assert isinstance(twice.error, RecordedError)
    assert vars(twice.error) == vars(again)


@attrs.frozen
class Score:
    """A value that msgspec knows."""

    points: int


def test_a_value_is_written_as_its_json() -> None:
    """Its type is its program's own."""
    assert outcome_from_json(outcome_to_json(outcome(value=Score(3)))).value == {"points": 3}
    with pytest.raises(
        UsageError, match="'object' in the outcome's value cannot be written as JSON"
    ):
        outcome_to_json(outcome(value=[object()]))


@pytest.mark.parametrize("text", ["[]", "{}", "", b"\xff"])
def test_what_is_no_outcome_is_refused(text: str | bytes) -> None:
    """With the place where it goes wrong."""
    with pytest.raises(UsageError, match="the text is not an outcome"):
        outcome_from_json(text)

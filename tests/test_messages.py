"""The words that cross every floor."""

import pickle

import msgspec
import pytest

from agentpool import OWNER_ID, AgentMessage, Usage
from agentpool._messages import NO_USAGE, estimate_tokens
from agentpool.abc import Completion, CompletionRequest, ToolDefinition
from agentpool.drivers import AssistantMessage, FinishReason, ToolCall, ToolMessage, UserMessage

CALL = ToolCall("call-1", "search", '{"for": "x"}')
VALUES = (
    AgentMessage(OWNER_ID, 1, "hello", 1),
    CALL,
    UserMessage("hello"),
    AssistantMessage("", (CALL,)),
    ToolMessage("call-1", "search", "nothing", is_error=True),
    ToolDefinition("search", "Look it up.", {"type": "object"}),
    Usage(1, 2, 3, 4),
    CompletionRequest((UserMessage("hello"),)),
    Completion("hi", usage=Usage(1, 2)),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_words_survive_pickle(value: object) -> None:
    """They cross process lines in the Ray adapter."""
    assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_words_do_not_change(value: msgspec.Struct) -> None:
    """They are shared by every agent, observer and driver that sees them."""
    field = type(value).__struct_fields__[0]
    with pytest.raises(AttributeError):
        setattr(value, field, "other")


def test_usage_adds_up_field_by_field() -> None:
    """The sum over a run says as much as each answer did."""
    assert Usage(1, 2, 3, 4) + Usage(10, 20, 30, 40) == Usage(11, 22, 33, 44)
    assert NO_USAGE + NO_USAGE == NO_USAGE


def test_total_tokens_are_those_in_and_out() -> None:
    """Cached and reasoning tokens are parts of these, not more of them."""
    assert Usage(10, 5, 8, 3).total_tokens == 15


def test_unknown_usage_is_not_zero_usage() -> None:
    """A provider that does not say is told apart from one that used nothing."""
    assert Completion("hi").usage is None


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("", 0), ("a", 1), ("ab", 1), ("abc", 2), ("hello", 2), ("a" * 250, 100), ("日本", 3)],
)
def test_tokens_are_estimated_from_bytes_rounded_up(text: str, tokens: int) -> None:
    """Two and a half bytes are a token; part of one is one."""
    assert estimate_tokens(text) == tokens


def test_a_lone_surrogate_can_be_estimated() -> None:
    """A file name that is not UTF-8 has them, and a tool may list it."""
    assert estimate_tokens("\udc80") > 0


def test_an_answer_ends_its_turn_unless_it_says_otherwise() -> None:
    """The shortest script of a fake driver is a text."""
    assert Completion("hi").finish_reason is FinishReason.END_TURN

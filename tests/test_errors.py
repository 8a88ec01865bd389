"""The tree of errors, and that each of them is data."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from typing import cast

import pytest

import agentpool._errors as room
from agentpool import (
    AgentCancelledError,
    AgentGoneError,
    AgentPoolError,
    CapabilityDeniedError,
    DeadlockError,
    DriverError,
    InboxFullError,
    LimitExceededError,
    ManifestError,
    MessageError,
    PoolClosedError,
    PoolError,
    PoolFullError,
    PrivacyError,
    ToolError,
    UnknownAgentError,
    UsageError,
)
from agentpool._errors import Fault
from agentpool.drivers import (
    AllDriversFailedError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    EmptyAnswerError,
    FailedAttemptError,
    InvalidOutputError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    UnknownModelError,
)
from agentpool.journal import (
    JournalError,
    LeaseLostError,
    ResumeMismatchError,
    RunBusyError,
    SessionBusyError,
)
from agentpool.memory import MemoryStoreError
from agentpool.observe import RecordedError, TraceError
from agentpool.testing import RecordingMissError

DRIVER_ERRORS = (
    DriverError,
    RateLimitError,
    OverloadedError,
    NetworkError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    UnknownModelError,
    EmptyAnswerError,
    FailedAttemptError,
    ProtocolError,
    RecordingMissError,
)
SAMPLES: tuple[AgentPoolError, ...] = (
    AgentPoolError("x"),
    UsageError("x"),
    ManifestError([Fault("a.b", "is wrong"), Fault("", "is empty")], source="agent.toml"),
    PoolFullError("x", running=2, queued=3),
    PoolClosedError("x"),
    MessageError("x", recipient=4),
    UnknownAgentError("x", recipient=4),
    AgentGoneError("x", recipient=4),
    InboxFullError("x", recipient=4),
    DeadlockError("x", agent_ids=(1, 2)),
    *(cls("x", retryable=True, retry_after_seconds=1.5, status_code=429) for cls in DRIVER_ERRORS),
    AllDriversFailedError("x", errors=[]),
    InvalidOutputError("x", answers=3),
    ToolError("x"),
    CapabilityDeniedError("x"),
    LimitExceededError("x", kind="max_iterations", used=5, limit=5, source="budget"),
    MemoryStoreError("x"),
    JournalError("x"),
    RunBusyError("x", host="h", pid=1, until=2.0),
    SessionBusyError("x", session="anna"),
    LeaseLostError.of("p", 3),
    ResumeMismatchError("x", agent_id=1, place=2, differs="y"),
    PrivacyError("x"),
    AgentCancelledError("x", cancelled_by="owner", reason="enough"),
    TraceError("x"),
    RecordedError("x", kind="ValueError", traceback="at line 3", details={"limit": "4"}),
    PoolError("x", [ToolError("y")], [7]),
)


def pickled(error: AgentPoolError) -> AgentPoolError:
    """Return what arrives when *error* is sent to another process."""
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, AgentPoolError)
    return again


def classes_of_the_room() -> dict[str, type[AgentPoolError]]:
    """Return every error class of the room by its name."""
    return {
        name: value
        for name, value in vars(room).items()
        if inspect.isclass(value) and issubclass(value, AgentPoolError)
    }


def parents_in_the_drawing() -> dict[str, str]:
    """Return each drawn class's parent, by the depth of the drawing's lines."""
    parents: dict[str, str] = {}
    above: list[str] = []
    for line in (room.__doc__ or "").splitlines():
        match = re.fullmatch(r" {4}((?:│   |├── |└── |    )*)(\w+Error)\b.*", line)
        if match:
            depth = len(match[1]) // 4
            above[depth:] = [match[2]]
            if depth:
                parents[match[2]] = above[depth - 1]
    return parents


def test_the_drawn_tree_is_the_tree() -> None:
    """Readers look at the drawing, `except` looks at the classes."""
    drawn = parents_in_the_drawing()
    real = {
        name: cls.__bases__[0].__name__
        for name, cls in classes_of_the_room().items()
        if cls is not AgentPoolError
    }
    assert drawn == real


def test_names_end_in_error() -> None:
    """A reader of `except X` sees that X is an error of ours."""
    assert all(name.endswith("Error") for name in classes_of_the_room())


def test_there_is_a_sample_of_every_class() -> None:
    """A new class cannot slip past the tests below."""
    assert {type(error) for error in SAMPLES} == set(classes_of_the_room().values())


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("make", [copy.copy, pickled])
def test_errors_survive_pickle_with_their_fields(
    error: AgentPoolError, make: Callable[[AgentPoolError], AgentPoolError]
) -> None:
    """They cross process lines, and a copy must say what the original says."""
    again = make(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    if isinstance(again, PoolError):
        assert {i: str(e) for i, e in again.by_agent.items()} == {7: "y"}
        assert [str(e) for e in again.exceptions] == ["y"]
    else:
        assert again.args == error.args
        assert vars(again) == vars(error)


def test_notes_survive_pickle() -> None:
    """What somebody added on the way up is part of the story."""
    error = UsageError("x")
    error.add_note("while reading the plan")
    assert pickled(error).__notes__ == ["while reading the plan"]


def test_a_manifest_error_lists_every_fault_with_its_path() -> None:
    """Nobody wants to find ten faults in ten runs."""
    error = ManifestError([Fault("a.b", "is wrong"), Fault("", "is empty")], source="x.toml")
    assert str(error) == "x.toml: a.b: is wrong; is empty"
    assert [fault.path for fault in error.faults] == ["a.b", ""]
    assert error.source == "x.toml"


@pytest.mark.parametrize("cls", DRIVER_ERRORS)
def test_what_may_succeed_later_says_so(cls: type[DriverError]) -> None:
    """A refused key is refused again; a busy server is not busy for ever."""
    transient = {RateLimitError, OverloadedError, NetworkError, FailedAttemptError}
    assert cls("x").retryable is (cls in transient)
    assert cls("x", retryable=False).retryable is False


def pool_error() -> PoolError:
    """Return the error of three agents, one of which had two errors."""
    both = ExceptionGroup("both", [KeyError("a"), ToolError("b")])
    return PoolError("3 agents failed", [ToolError("c"), KeyError("d"), both], [3, 5, 8])


def test_a_pool_error_knows_whose_errors_they_are() -> None:
    """By agent id, in spawn order."""
    error = pool_error()
    assert list(error.by_agent) == [3, 5, 8]
    assert error.first is error.exceptions[0] is error.by_agent[3]


def test_a_split_pool_error_still_knows_its_agents() -> None:
    """`except*` hands out such parts."""
    error = PoolError("x", [ToolError("c"), KeyError("d")], [3, 5])
    tools, rest = error.split(ToolError)
    assert isinstance(tools, PoolError)
    assert isinstance(rest, PoolError)
    assert tools.by_agent == {3: error.exceptions[0]}
    assert rest.by_agent == {5: error.exceptions[1]}


def test_a_part_of_an_agents_group_is_still_that_agents() -> None:
    """An agent may fail with a group, of which ``except*`` takes a part."""
    group = ExceptionGroup("g", [ToolError("a"), KeyError("b")])
    error = PoolError("x", [group, ToolError("c"), KeyError("d")], [1, 3, 5])
    tools, rest = error.split(ToolError)
    assert isinstance(tools, PoolError)
    assert isinstance(rest, PoolError)
    assert list(tools.by_agent) == [1, 3]
    assert list(rest.by_agent) == [1, 5]
    inner = tools.by_agent[1]
    assert isinstance(inner, ExceptionGroup)
    assert inner.exceptions == (group.exceptions[0],)


def test_agents_that_failed_with_one_error_are_all_there() -> None:
    """They were found by the address of their error, and only the last was left."""
    shared = ToolError("the same for all")
    error = PoolError("x", [shared, KeyError("d"), shared], [3, 5, 8])
    assert error.by_agent == {3: shared, 5: error.exceptions[1], 8: shared}
    tools, rest = error.split(ToolError)
    assert isinstance(tools, PoolError)
    assert isinstance(rest, PoolError)
    assert tools.by_agent == {3: shared, 8: shared}
    assert list(rest.by_agent) == [5]


def test_a_group_of_other_errors_names_no_agents() -> None:
    """A wrong name would be worse than none."""
    whole = pool_error()
    assert whole.derive([ToolError("of somebody else")]).by_agent == {}
    stranger = ExceptionGroup("g", [ToolError("of somebody else")])
    assert whole.derive([stranger]).by_agent == {}


def test_except_star_takes_a_pool_error_apart() -> None:
    """The usual way to handle some of the failures and not the others."""
    seen: list[int] = []
    with pytest.raises(PoolError) as caught:  # noqa: PT012  # except* needs its block
        try:
            raise PoolError("x", [ToolError("c"), KeyError("d")], [3, 5])
        except* ToolError as group:
            seen.extend(cast("PoolError", group).by_agent)
    assert seen == [3]
    assert list(caught.value.by_agent) == [5]

"""The errors of agents that had ended in an earlier process."""

from __future__ import annotations

import pytest

from agentpool import (
    AgentManifest,
    AgentOutcome,
    DriverError,
    LimitExceededError,
    SpawnConfig,
    open_pool,
)
from agentpool.abc import CompletionRequest
from agentpool.drivers import (
    AllDriversFailedError,
    BadRequestError,
    FunctionDriver,
    InvalidOutputError,
    NetworkError,
    RateLimitError,
    call,
)
from agentpool.journal import InMemoryJournal
from agentpool.observe import RecordedError, outcome_from_json, outcome_to_json


class OddError(DriverError):
    """Of a driver that somebody wrote."""


async def run(journal: InMemoryJournal, error: Exception) -> AgentOutcome:
    """Run an agent whose driver raises *error*, or get its outcome again."""

    def fail(_: CompletionRequest) -> str:
        raise error

    async with open_pool(FunctionDriver(fail), journal=journal, resume=True) as pool:
        manifest = AgentManifest(name="a", capabilities=())
        return await (await pool.spawn(SpawnConfig(manifest, "q", key="k"))).wait()


def begun(error: DriverError) -> DriverError:
    """Return *error* as of an answer that had begun."""
    error.has_begun, error.tokens, error.cost_usd = True, (5, 7), 0.25
    return error


OWN = [
    BadRequestError("no 5", status_code=400),
    RateLimitError("slow", retryable=False, retry_after_seconds=float("inf"), status_code=429),
    begun(BadRequestError("late")),
    InvalidOutputError("none fits", answers=3),
    AllDriversFailedError(
        "both", errors=[BadRequestError("one", status_code=400), begun(NetworkError("two"))]
    ),
]


@pytest.mark.parametrize("error", OWN, ids=[str(one) for one in OWN])
async def test_an_error_of_the_package_is_of_its_class_again(error: DriverError) -> None:
    """With all of its fields, however often the pool is gone on with; and its traceback is told."""
    journal = InMemoryJournal()
    told = None
    for _ in range(3):
        again = (await run(journal, error)).error
        assert type(again) is type(error)
        assert isinstance(again, DriverError)
        assert str(again) == str(error)
        kept = {
            name: one for name, one in vars(again).items() if name not in {"_recorded", "errors"}
        }
        assert kept == {name: one for name, one in vars(error).items() if name != "errors"}
        if isinstance(error, AllDriversFailedError):
            assert isinstance(again, AllDriversFailedError)
            assert [*map(type, again.errors)] == [*map(type, error.errors)]
            assert [one.tokens for one in again.errors] == [None, (5, 7)]
        saved = outcome_from_json(outcome_to_json(await run(journal, error))).error
        assert isinstance(saved, RecordedError)
        assert (saved.kind, len(saved.errors)) == (
            type(error).__name__,
            len(vars(error).get("errors", ())),
        )
        assert "in fail" in saved.traceback
        assert told in {None, saved.traceback}
        told = saved.traceback


async def test_a_limit_is_a_limit_again() -> None:
    """With how much was used, and of what."""
    journal = InMemoryJournal()
    manifest = AgentManifest.parse("name = 'a'\n[resources]\nmax_iterations = 1")
    errors = list[LimitExceededError]()
    for _ in range(2):
        async with open_pool(
            FunctionDriver(lambda _: call("look")), journal=journal, resume=True
        ) as pool:
            outcome = await (await pool.spawn(SpawnConfig(manifest, "q", key="k"))).wait()
        with pytest.raises(LimitExceededError) as raised:
            outcome.unwrap()
        errors.append(raised.value)
    first, again = errors
    assert (again.kind, again.used, again.limit, again.source) == (
        first.kind, first.used, first.limit, first.source,
    )  # fmt: skip
    assert str(again) == str(first)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("odd"),
        OddError("odd"),
        AllDriversFailedError("odd", errors=[OddError("inside")]),
    ],
    ids=["ValueError", "OddError", "inside"],
)
async def test_another_error_is_told_as_it_was_recorded(error: Exception) -> None:
    """Its class is known to its program alone."""
    journal = InMemoryJournal()
    await run(journal, error)
    again = (await run(journal, error)).error
    assert isinstance(again, RecordedError)
    assert (again.kind, str(again)) == (type(error).__name__, "odd")


async def test_fields_that_cannot_be_read_are_told_as_they_are() -> None:
    """A file may have been changed."""
    journal = InMemoryJournal()
    await run(journal, BadRequestError("no", status_code=400))
    records = journal._pools["pool"]
    *_, (place, ended) = ((i, one) for i, one in enumerate(records) if one.kind.value == "ended")
    records[place] = ended.__class__(
        ended.agent_id, ended.kind, ended.place, ended.part, ended.digest,
        ended.body.replace(b'"400"', b'"x"'),
    )  # fmt: skip
    again = (await run(journal, BadRequestError("no"))).error
    assert isinstance(again, RecordedError)
    assert again.details["status_code"] == "x"

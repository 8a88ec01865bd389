"""A pool's events as log lines: levels that can be filtered, and nothing that was said."""

from __future__ import annotations

import logging

import pytest

from agentpool import AgentOutcome, AgentStatus, StopReason
from agentpool.observe import AgentFinished, AgentSpawned, LoggingObserver
from agentpool.testing import check_observer
from agentpool.testing._check_observer import every_event


async def test_it_is_an_observer_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    """Of every kind of event."""
    caplog.set_level(logging.CRITICAL)
    await check_observer(LoggingObserver)


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    """Return the lines that every kind of event makes at *level*."""
    caplog.clear()
    caplog.set_level(level)
    observer = LoggingObserver(logging.getLogger("pool"))
    for event in every_event(0):
        observer.on_event(event)
    for status in (AgentStatus.FAILED, AgentStatus.STOPPED):
        outcome = AgentOutcome(
            agent_id=1, name="a", status=status, error=ValueError("secret words"),
            stop_reason=StopReason.DEADLINE,
        )  # fmt: skip
        observer.on_event(AgentFinished(1, 0.0, 1, "a", outcome))
    return [record.getMessage() for record in caplog.records]


def test_each_level_has_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Who reads errors alone reads of failures alone."""
    assert lines(caplog, logging.ERROR) == ["agent 1 (a) failed (deadline): ValueError"]
    warnings = lines(caplog, logging.WARNING)
    assert "agent 1 (a) asks again in 2.00 s" in warnings
    assert "agent 1 (a) brings budget 'night' to 800 of 1,000 (token_budget)" in warnings
    assert "agent 1 (a) message 1 to agent 2, which is lost: it ended first" in warnings
    infos = lines(caplog, logging.INFO)
    for words in ("is spawned", "starts", "completed", "needs approval for add", "may call add"):
        assert f"agent 1 (a) {words}" in infos
    debug = lines(caplog, logging.DEBUG)
    for words in (
        "waits for a slot, 0 ahead",
        "got an answer after 0.50 s, 3 tokens",
        "calls add",
        "add returned",
        "waits for a message",
        "got no answer: OverloadedError",
    ):
        assert f"agent 1 (a) {words}" in debug


def test_what_was_said_is_in_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """A log is kept elsewhere, and by others, than a trace."""
    text = "\n".join(lines(caplog, logging.DEBUG))
    for word in ("hello", "a piece", "secret words", '{"a": 1}'):
        assert word not in text


def test_the_event_goes_along(caplog: pytest.LogCaptureFixture) -> None:
    """For handlers that write fields."""
    lines(caplog, logging.ERROR)
    (record,) = caplog.records
    assert isinstance(vars(record)["agentpool_event"], AgentFinished)


def test_without_a_logger_it_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Under the package's, so that one setting reaches both."""
    caplog.set_level(logging.INFO, "agentpool.events")
    for event in every_event(0):
        LoggingObserver().on_event(event)
    assert {record.name for record in caplog.records} == {"agentpool.events"}


def test_a_name_forges_no_line(caplog: pytest.LogCaptureFixture) -> None:
    """One event is one line, whatever a program took an agent's name from."""
    caplog.set_level(logging.INFO)
    name = "x is spawned\nERROR agent 7 (payroll) failed \x1b[2J\u202e"
    LoggingObserver().on_event(AgentSpawned(1, 0.0, 1, name, 0))
    (record,) = caplog.records
    assert record.getMessage() == (
        r"agent 1 (x is spawned\nERROR agent 7 (payroll) failed \x1b[2J\u202e) is spawned"
    )

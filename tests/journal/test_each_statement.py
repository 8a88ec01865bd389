"""Any statement that a journal sends to SQLite may fail: nothing is half done, and all goes on."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from agentpool import AgentManifest, AgentStatus, Budget, SpawnConfig, open_pool
from agentpool.abc import CompletionRequest, ToolContext
from agentpool.drivers import FunctionDriver, ToolMessage, call
from agentpool.drivers._scripted import Answer
from agentpool.journal import JournalError, open_journal
from agentpool.testing import simulate
from agentpool.tools import ToolRegistry, tool

READER = AgentManifest(name="reader", capabilities=())


@attrs.frozen
class Fault:
    """How a statement fails."""

    code: int
    words: str
    """What SQLite says."""
    is_done: bool = False
    """Whether it fails after it was done."""

    def raised(self) -> sqlite3.Error:
        """Return what SQLite raises."""
        error = sqlite3.OperationalError(self.words)
        error.sqlite_errorcode = self.code
        return error


FAULTS = {
    "an I/O error": Fault(sqlite3.SQLITE_IOERR, "disk I/O error"),
    "a full disk": Fault(sqlite3.SQLITE_FULL, "database or disk is full"),
    "an I/O error after it was done": Fault(sqlite3.SQLITE_IOERR, "disk I/O error", is_done=True),
    "a lock": Fault(sqlite3.SQLITE_BUSY, "database is locked"),
}


@attrs.define
class Trouble:
    """Which statement of the process fails, and how."""

    fails_at: int = 0
    """Counted from 1. 0: none does."""
    fault: Fault = FAULTS["an I/O error"]
    count: int = 0

    def connection(self, *args: Any, **terms: Any) -> sqlite3.Connection:  # noqa: ANN401  # as sqlite3.connect takes them
        """Connect, with statements that are counted."""
        trouble = self

        class Counting(sqlite3.Connection):
            def execute(self, *words: Any) -> sqlite3.Cursor:  # noqa: ANN401  # the same
                return trouble.run(super().execute, words)

            def executemany(self, *words: Any) -> sqlite3.Cursor:  # noqa: ANN401  # the same
                return trouble.run(super().executemany, words)

        return CONNECT(*args, **terms, factory=Counting)

    def run(self, statement: Any, words: tuple[Any, ...]) -> sqlite3.Cursor:  # noqa: ANN401  # the same
        """Run a statement, unless it is the one."""
        self.count += 1
        if self.count != self.fails_at:
            return statement(*words)  # type: ignore[no-any-return]
        if self.fault.is_done:
            statement(*words)
        raise self.fault.raised()


CONNECT = sqlite3.connect

WANTED = (AgentStatus.COMPLETED, "it is paid")


@pytest.fixture
def trouble(monkeypatch: pytest.MonkeyPatch) -> Trouble:
    """Return what can go wrong with each connection from here on."""
    found = Trouble()
    monkeypatch.setattr(sqlite3, "connect", found.connection)
    return found


def errors_in(error: BaseException) -> Iterator[BaseException]:
    """Yield what is in a group, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from errors_in(one)
    else:
        yield error


async def buy(file: Path, paid: Counter[str]) -> tuple[AgentStatus, str, float]:
    """Run an agent that pays once, with a budget in the same file. Return what came of it."""

    @tool(on_unknown="rerun")
    async def pay(context: ToolContext) -> str:
        """Pay."""
        await trio.lowlevel.checkpoint()
        paid[context.idempotency_key] += 1
        return "paid"

    def answer(request: CompletionRequest) -> Answer:
        done = isinstance(request.messages[-1], ToolMessage)
        return "it is paid" if done else call("pay")

    async with open_journal(file) as journal:
        budget = Budget(requests=9, per="day", store=journal, name="team")
        async with open_pool(
            FunctionDriver(answer), name="shop", journal=journal, resume=True, budget=budget,
            tools=ToolRegistry([pay]),
        ) as pool:  # fmt: skip
            outcome = await (await pool.spawn(SpawnConfig(READER, "buy", key="b"))).wait()
            if isinstance(outcome.error, JournalError):
                raise outcome.error
            return outcome.status, outcome.text, budget.statistics().requests.committed


def attempt(
    file: Path, paid: Counter[str]
) -> tuple[tuple[AgentStatus, str, float] | None, tuple[BaseException, ...]]:
    """Return what the agent came to, or what was raised."""
    try:
        return simulate(buy, file, paid), ()
    except Exception as error:  # noqa: BLE001  # looked at by the caller
        return None, tuple(errors_in(error))


@pytest.mark.parametrize("name", FAULTS)
def test_after_each_statement_that_fails_the_run_goes_on(
    trouble: Trouble, tmp_path: Path, name: str
) -> None:
    """A lock is waited for. Anything else ends the pool with one error, and the next goes on."""
    fault = trouble.fault = FAULTS[name]
    whole, _ = attempt(tmp_path / "whole.db", Counter())
    assert whole is not None
    assert whole[:2] == WANTED
    statements = trouble.count
    assert statements > 50
    failed = 0
    # All of them for one fault; the others take every fourth, which costs a quarter.
    for number in range(1, statements + 1, 1 if name == "an I/O error" else 4):
        file, paid = tmp_path / f"{number}.db", Counter[str]()
        trouble.count, trouble.fails_at = 0, number
        found, raised = attempt(file, paid)
        if found is None:
            failed += 1
            for error in raised:
                assert isinstance(error, JournalError), raised
                assert fault.words in str(error)
                assert str(file) in str(error)
                assert not re.search("incompatible|later version|not a journal|damaged", str(error))
            trouble.fails_at = 0
            found, raised = attempt(file, paid)
        assert found is not None, raised
        # A request that had left when its process ended is charged a second time.
        assert found[:2] == WANTED
        assert found[2] in {2, 3, 4}
        assert list(paid.values()) in ([1], [2]), paid
    assert failed == 0 if name == "a lock" else failed > statements / 12

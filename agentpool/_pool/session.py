"""Conversations of many turns that outlive their process, each in a separate pool.

Rules:

1. A session is a pool of the journal, and each turn is an agent of that pool, which continues from
   the messages of the previous turn. The process with the pool's lease has the session.
2. A turn is part of the conversation when it is complete: its model ended it, or a limit did. A
   turn that failed or was cancelled is not part of it. A turn that was cut off by the end of its
   process is unfinished: it goes on if it is asked again.
3. At most one turn runs at a time. A second one waits or is refused, as ``on_busy`` says.
4. Nothing is deleted: going back moves the head, and the next turn continues from there.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, Self, TypeAlias, final

import attrs
import msgspec
import trio

from agentpool._amounts import counted
from agentpool._base import Shown, Unique
from agentpool._checks import expect_arguments
from agentpool._errors import RunBusyError, SessionBusyError, UsageError
from agentpool._journal_records import JournalRecord, RecordKind
from agentpool._messages import OWNER_ID, AgentId, ChatMessage
from agentpool._opening import opening
from agentpool._outcome import AgentOutcome
from agentpool._pool.handle import AgentHandle
from agentpool._pool.journal import PoolJournal
from agentpool._pool.journal_opening import new_run_id
from agentpool._pool.open import open_pool
from agentpool._pool.past import WHOLE, PastAgent, copy_turns
from agentpool._pool.pool import AgentPool
from agentpool._pool.spawn_checks import check_config
from agentpool._public import advised
from agentpool._spawn import SpawnConfig
from agentpool.abc import Driver, DriverFactory, Journal

OnBusy: TypeAlias = Literal["refuse", "wait"]
"""What happens to a turn while another one has not ended."""

PREFIX: Final = "session "
"""The beginning of the name of a session's pool, before the session's name."""

LOOK_SECONDS: Final = 0.25
"""The time between two checks whether another process has left a session."""


@final
@attrs.frozen
class SessionTurn:
    """One complete turn of a conversation."""

    agent_id: AgentId
    """The agent that ran it. Its number identifies the turn in the session."""
    query: str
    """The query."""
    outcome: AgentOutcome
    """The outcome. Its messages are the conversation so far."""


@final
@attrs.define(eq=False, repr=False)
class Session(Unique, Shown):
    """A stored conversation. Opened by ``open_session``."""

    name: str
    """Its name."""
    pool: AgentPool
    """The pool in which its turns run."""
    _kept: PoolJournal
    _on_busy: OnBusy
    _agents: dict[AgentId, PastAgent] = attrs.field(factory=dict[AgentId, PastAgent])
    """Every turn that was ever begun, however it ended."""
    _open: PastAgent | None = None
    _running: AgentHandle | None = None
    _begin: trio.Lock = attrs.field(factory=trio.Lock)

    @classmethod
    def of(cls, pool: AgentPool, *, on_busy: OnBusy = "refuse") -> Self:
        """Return the session of *pool*.

        The pool needs the name that ``session_pool_name`` gives, a journal, and ``resume=True``.

        Args:
            pool: The pool in which its turns run.
            on_busy: What happens to a turn while another one has not ended.

        Raises:
            UsageError: If the pool is not a session's.
        """
        expect_arguments(Session.of, locals())
        kept = pool._agents.journal  # pyright: ignore[reportPrivateUsage]  # one floor
        if kept is None or not pool.name.startswith(PREFIX):
            raise UsageError(
                f"pool {pool.name!r} is not a session; open it with a journal, resume=True and "
                "name=session_pool_name(...)"
            )
        session = cls(pool.name.removeprefix(PREFIX), pool, kept, on_busy)
        for past in kept.past.values():
            if past.parent_id == OWNER_ID:
                session._agents[past.agent_id] = past
        newest = max(session._agents, default=OWNER_ID)
        if newest > kept.head and session._agents[newest].outcome is None:
            session._open = session._agents[newest]
        return session

    def __repr__(self) -> str:
        """Return the name and the number of turns."""
        return f"<Session {self.name!r}: {counted(len(self.turns), 'turn')}>"

    @property
    def turns(self) -> tuple[SessionTurn, ...]:
        """The complete turns up to the head, oldest first."""
        self._look()
        turns = list[SessionTurn]()
        number = self._kept.head
        while number:
            past = self._agents[number]
            assert past.outcome is not None  # noqa: S101  # only whole turns are gone on after
            turns.append(SessionTurn(number, past.config.query, past.outcome))
            number = past.after
        return tuple(reversed(turns))

    @property
    def messages(self) -> tuple[ChatMessage, ...]:
        """The conversation up to the head."""
        self._look()
        return self._kept.head_messages

    @property
    def unfinished(self) -> SpawnConfig | None:
        """The turn that an earlier process left unfinished, or ``None``. Pass it to ``ask``."""
        return None if self._open is None else self._open.config

    @advised
    async def ask(self, config: SpawnConfig) -> AgentOutcome:
        """Take one turn and return its outcome.

        Args:
            config: The agent and the query. Its history is the session's. Each turn may use a
                different model.

        Raises:
            SessionBusyError: If another turn has not ended, and the session does not wait.
            UsageError: If *config* has a history or a key.
            JournalError: If a complete turn cannot be stored.

        Cancellation:
            The turn has ended and does not count. To continue it, ask it again in a later process.
        """
        handle = await self.begin(config)
        try:
            outcome = await handle.wait()
        except trio.Cancelled:
            self._leave_open(handle)
            with trio.CancelScope(shield=True):
                await handle.wait()
            raise
        if outcome.status in WHOLE:
            with trio.CancelScope(shield=True):  # it is a turn, and is told as one
                await self.flush()
        return outcome

    async def flush(self) -> None:
        """Wait until every turn that has ended is in the journal. ``ask`` does so itself.

        Raises:
            JournalError: If it cannot be written.

        Cancellation:
            The turns are stored later.
        """
        await self._kept.writer.flush()

    async def begin(self, config: SpawnConfig) -> AgentHandle:
        """Begin one turn, as ``ask`` does. The handle waits for it or cancels it.

        Its end is in the journal once ``flush`` has returned.

        Raises:
            SessionBusyError: If another turn has not ended, and the session does not wait.
            UsageError: If it has a history or a key.

        Cancellation:
            Nothing was begun.
        """
        check_config(config)
        if (config.history and config is not self.unfinished) or config.key is not None:
            raise UsageError(
                "the turn of a session has its history and its key from the session; leave them "
                "out of the SpawnConfig"
            )
        if self._on_busy == "refuse" and (self._begin.locked() or self._is_busy()):
            raise SessionBusyError(
                f"session {self.name!r} has a turn that has not ended; wait for it, cancel it, or "
                "open the session with on_busy='wait'",
                session=self.name,
            )
        async with self._begin:
            if self._running is not None:
                await self._running.wait()
            self._look()
            history = self._kept.head_messages
            past = self._open
            if past is not None and _asks_the_same(past, config):
                config = msgspec.structs.replace(past.config, key=past.key)
            else:
                key = f"turn {1 + max(map(_number, self._agents.values()), default=0)}"
                config = msgspec.structs.replace(config, history=history, key=key)
            after = self._kept.head
            handle = await self.pool.spawn(config)
            self._open = None
            self._running = handle
            assert config.key is not None  # noqa: S101  # just given
            self._agents[handle.agent_id] = PastAgent(
                handle.agent_id, OWNER_ID, config.key, "", config, after
            )
            return handle

    async def go_back(self, turns: int = 1) -> None:
        """Undo the last *turns*, which the file keeps. The next turn continues from before them.

        Raises:
            SessionBusyError: If a turn has not ended.
            UsageError: If there are not that many.

        Cancellation:
            The turns are undone.
        """
        expect_arguments(Session.go_back, locals())
        self._refuse_busy()
        known = self.turns
        if not 0 < turns <= len(known):
            raise UsageError(
                f"session {self.name!r} has {counted(len(known), 'turn')}; cannot undo {turns!r}"
            )
        left = known[: len(known) - turns]
        self._kept.head = left[-1].agent_id if left else OWNER_ID
        self._kept.head_messages = left[-1].outcome.messages if left else ()
        self._open = None
        self._kept.writer.note(JournalRecord(self._kept.head, RecordKind.HEAD))
        await self._kept.writer.flush()

    async def branch(self, name: str, *, turns: int | None = None) -> None:
        """Begin a new session with the conversation so far. Both then continue separately.

        Args:
            name: The name of the new session.
            turns: How many turns it begins with. ``None``: all.

        Raises:
            SessionBusyError: If a turn has not ended, or a process has a session *name* open.
            UsageError: If there is already a session *name*, or there are not that many turns.

        Cancellation:
            The new session is complete, or empty.
        """
        expect_arguments(Session.branch, locals())
        self._refuse_busy()
        known = self.turns
        if turns is not None and not 0 <= turns <= len(known):
            raise UsageError(
                f"session {self.name!r} has {counted(len(known), 'turn')}; cannot copy {turns!r}"
            )
        wanted = [turn.agent_id for turn in known[:turns]]
        await self._kept.writer.flush()
        journal = self._kept.writer.journal
        records = await journal.read(self.pool.name)
        other = session_pool_name(name)
        try:
            lease = await journal.claim(other)
        except RunBusyError as error:
            raise SessionBusyError(str(error), session=name) from error
        try:
            if await journal.read(other):
                raise UsageError(f"there is already a session {name!r}; choose another name")
            await journal.append(lease, copy_turns(records, wanted, new_run_id()))
        finally:
            with trio.CancelScope(shield=True):
                await journal.release(lease)

    def _refuse_busy(self) -> None:
        if self._is_busy():
            raise SessionBusyError(
                f"session {self.name!r} has a turn that has not ended; wait for it or cancel it",
                session=self.name,
            )

    def _is_busy(self) -> bool:
        return self._running is not None and not self._running.has_ended

    def _look(self) -> None:
        """Store the outcome of the last turn, once it has ended."""
        handle = self._running
        if handle is None or not handle.has_ended:
            return
        self._running = None
        outcome = handle.outcome
        assert outcome is not None  # noqa: S101  # it has ended
        self._agents[handle.agent_id].outcome = outcome
        if outcome.status in WHOLE:
            self._kept.head, self._kept.head_messages = handle.agent_id, outcome.messages

    def _leave_open(self, handle: AgentHandle) -> None:
        """End a turn so that a later process can continue it."""
        record = handle._record  # pyright: ignore[reportPrivateUsage]  # one floor
        record.noted().is_left_open = not record.has_ended
        handle.cancel("the call that asked was cancelled")


def session_pool_name(name: str) -> str:
    """Return the name of the pool of session *name* in its journal.

    Raises:
        UsageError: If it is not a name.
    """
    expect_arguments(session_pool_name, locals())
    if not name.strip() or not name.isprintable():
        raise UsageError(f"a session's name must be a line of text, got {name!r}")
    return f"{PREFIX}{name}"


def session_names(pools: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the sessions among the *pools* of a journal.

    >>> session_names(["run", "session anna"])
    ('anna',)
    """
    expect_arguments(session_names, locals())
    return tuple(one.removeprefix(PREFIX) for one in pools if one.startswith(PREFIX))


@opening("session")
@asynccontextmanager
async def open_session(
    journal: Journal,
    name: str,
    driver: Driver | DriverFactory,
    *,
    on_busy: OnBusy = "refuse",
    **terms: Any,  # noqa: ANN401  # those of open_pool
) -> AsyncGenerator[Session]:
    """Open a stored conversation; create it if it is missing.

    Example::

        async with open_session(journal, "anna", driver) as session:
            outcome = await session.ask(SpawnConfig(manifest, "My name is Anna."))
            ...
            outcome = await session.ask(SpawnConfig(manifest, "Who am I?"))

    Args:
        journal: The journal that stores it.
        name: Its name there.
        driver: Answers its turns, or chooses a driver by manifest.
        on_busy: What happens to a turn while another one has not ended, and to this call while
            another process has the session: ``refuse`` raises, ``wait`` waits.
        terms: Other arguments of ``open_pool``, such as ``tools``.

    Yields:
        The session. At its end, the block waits for the last turn.

    Raises:
        SessionBusyError: If another process has it, and ``on_busy`` is ``refuse``.
        JournalError: If the journal cannot be used.
    """
    expect_arguments(open_session, locals())
    async with AsyncExitStack() as stack:
        pool = None
        while pool is None:
            try:
                pool = await stack.enter_async_context(
                    open_pool(
                        driver, journal=journal, resume=True, name=session_pool_name(name), **terms
                    )
                )
            except RunBusyError as error:
                if on_busy != "wait":
                    raise SessionBusyError(
                        f"session {name!r} is open elsewhere: {error}", session=name
                    ) from error
                await trio.sleep(LOOK_SECONDS)
        yield Session.of(pool, on_busy=on_busy)


def _number(turn: PastAgent) -> int:
    return int(turn.key.removeprefix("turn "))


def _asks_the_same(past: PastAgent, config: SpawnConfig) -> bool:
    before = past.config
    return config is before or (
        (before.manifest, before.query, before.attachments)
        == (config.manifest, config.query, config.attachments)
    )

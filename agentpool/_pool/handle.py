"""The handle of an agent, which ``spawn`` returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import TYPE_CHECKING, Final, NoReturn, final

import msgspec

from agentpool._base import Shown, Unique
from agentpool._checks import expect_arguments
from agentpool._errors import UsageError
from agentpool._messages import AgentId, AgentMessage
from agentpool._needs_trio import check_trio
from agentpool._numbers import quoted
from agentpool._outcome import AgentOutcome, AgentStatus
from agentpool._pool.record import AgentRecord, Caretaker, Kept, as_record
from agentpool._public import refuse_attribute
from agentpool._scheduling.ctrl_c import unbroken

if TYPE_CHECKING:
    from agentpool._pool.text_stream import TextStream

_ADVICE: Final[Mapping[str, str]] = {
    "result": "the outcome is what `await handle.wait()` returns",
    "outcome": "the outcome is what `await handle.wait()` returns",
    "text": "an outcome has the text: `(await handle.wait()).text`",
    "join": "write `await handle.wait()`",
    "id": "it is `agent_id`",
}
"""What to write instead of wrong names that users may try."""


@unbroken
@final
class AgentHandle(Unique, Shown, msgspec.Struct, frozen=True, weakref=True):
    """The outside view of one agent, from its spawn on. Only a pool makes handles.

    Two handles are equal if they are of the same agent. A handle can watch its agent, write
    to it and end it; the pool decides everything else about it.

    >>> import trio
    >>> from agentpool import AgentManifest, SpawnConfig, open_pool
    >>> from agentpool.drivers import ScriptedDriver
    >>> async def main() -> None:
    ...     async with open_pool(ScriptedDriver(["Paris"])) as pool:
    ...         handle = pool.spawn_nowait(SpawnConfig(AgentManifest(name="guide"), "Capital?"))
    ...         outcome = await handle.wait()
    ...         print(handle, outcome.text)
    >>> trio.run(main)
    <AgentHandle 1 (guide) completed> Paris
    """

    _pool: Caretaker
    _kept: Kept

    @property
    def _record(self) -> AgentRecord:
        return as_record(self._pool, self._kept)

    if not TYPE_CHECKING:  # a type checker shall know that there is nothing else

        def __getattr__(self, name: str) -> NoReturn:
            """Refuse a missing attribute, with advice."""
            refuse_attribute(self, name, _ADVICE)

    def __eq__(self, other: object) -> bool:
        """Return whether *other* is a handle of the same agent."""
        if not isinstance(other, AgentHandle):
            return NotImplemented
        return self.agent_id == other.agent_id and self._pool is other._pool

    def __hash__(self) -> int:
        """Return a hash that is equal for all handles of the agent."""
        return hash(self.agent_id)

    def __repr__(self) -> str:
        """Return id, name and status."""
        return f"<AgentHandle {self.agent_id} ({self.name}) {self.status.value}>"

    @property
    def agent_id(self) -> AgentId:
        """The agent's id: 1, 2, 3, … in spawn order."""
        return self._kept.agent_id

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._kept.name

    @property
    def parent_id(self) -> AgentId:
        """The id of the agent that spawned it. 0: the pool's owner."""
        return self._record.parent_id

    @property
    def depth(self) -> int:
        """The number of generations above it. 0: the owner spawned it."""
        return self._record.depth

    @property
    def status(self) -> AgentStatus:
        """The stage of the agent's life."""
        return self._record.status

    @property
    def waits_for(self) -> str:
        """What the agent waits for without a slot, in words. Empty: it is not waiting."""
        return self._record.waits_for

    @property
    def has_ended(self) -> bool:
        """Whether the agent has ended. Unlike ``outcome``, this does not retrieve the outcome."""
        return self._record.has_ended

    @property
    def outcome(self) -> AgentOutcome | None:
        """The outcome, which counts as retrieved from now on. ``None``: the agent has not ended."""
        return self._record.outcome

    async def wait(self) -> AgentOutcome:
        """Wait until the agent has ended, and return its outcome.

        An agent that waits for another gives its slot back meanwhile.

        Raises:
            UsageError: If the agent waits for itself.
            DeadlockError: If the agent can never end while the caller waits.

        Cancellation:
            The agent goes on, and its outcome is not lost.
        """
        return await self._record.wait()

    def stream(self) -> TextStream:
        """Return an async iterator over the agent's text as it arrives. It ends with the agent.

        ``with handle.stream() as pieces: async for piece in pieces: print(piece, end="")``

        Raises:
            UsageError: If the agent itself calls it: it would wait for itself.
        """
        from agentpool._pool.text_stream import TextStream  # noqa: PLC0415  # on first use

        self._pool.voice.owner.check_thread("handle.stream")
        self._record.refuse_itself()
        return TextStream._open(self._record, self._record.hub)  # pyright: ignore[reportPrivateUsage]  # only handles make them

    def cancel(self, reason: str = "no reason given") -> None:
        """Cancel the agent, queued or running. It still gets an outcome with what it produced.

        Cancelling an agent that has ended does nothing.
        """
        expect_arguments(AgentHandle.cancel, locals())
        self._pool.voice.owner.check_thread("handle.cancel")
        self._record.cancel(reason)

    def forget(self) -> None:
        """Make the pool forget an ended agent: ``pool[id]`` and joins no longer find it.

        One that was cancelled is forgotten when it has cleaned up and ended; until then a
        ``join_all`` waits for it. If it fails, the pool does not raise that.

        Otherwise a long-lived pool would keep every outcome. See also ``keep_outcomes``
        of ``open_pool``. The handle itself still has the outcome.

        Raises:
            UsageError: If the agent goes on.
        """
        self._pool.voice.owner.check_thread("handle.forget")
        self._record.forget()

    def interrupt(self) -> None:
        """Stop the agent after its current turn, with the reason ``INTERRUPTED``."""
        self._pool.voice.owner.check_thread("handle.interrupt")
        self._record.interrupt()

    async def send(self, content: str, *, reply_to: int | None = None) -> AgentMessage:
        """Send the agent a message, waiting while its inbox is full.

        The sender is the agent whose code calls, or else the pool's owner.

        Raises:
            AgentGoneError: If it has ended, or ends during the wait. Nothing was sent.

        Cancellation:
            If cancelled, the message was not sent.
        """
        voice = self._pool.voice
        return await voice.post.send(voice.agent_id(), self._kept.agent_id, content, reply_to)

    def send_nowait(self, content: str, *, reply_to: int | None = None) -> AgentMessage:
        """Send the agent a message now, or raise.

        Raises:
            InboxFullError: If there is no room. Nothing was sent.
            AgentGoneError: If it has ended. Nothing was sent.
        """
        try:
            voice = self._pool.voice
            return voice.post.send_nowait(voice.agent_id(), self._kept.agent_id, content, reply_to)
        except RuntimeError:  # of trio, outside of a task
            check_trio("handle.send_nowait")
            raise

    async def ask(self, content: str) -> AgentMessage:
        """Send the agent a question and wait for the message that replies to it.

        Raises:
            AgentGoneError: If it has ended, or ends before it replies.

        Cancellation:
            The question may have been sent; a late reply goes to the inbox.
        """
        voice = self._pool.voice
        return await voice.post.ask(voice.agent_id(), self._kept.agent_id, content)


def handles_of(pool: Caretaker, agents: Iterable[Kept]) -> list[AgentHandle]:
    """Return a handle of each agent of *pool*."""
    return list(map(AgentHandle, repeat(pool), agents))


def unknown_agent(agent_id: object, last_id: AgentId, *, is_absent: bool) -> UsageError:
    """Return the error for an agent that has no handle.

    Args:
        agent_id: What was given as its number.
        last_id: The number of the newest agent.
        is_absent: Whether it began in an earlier process and was not spawned again.
    """
    if is_absent:
        return UsageError(
            f"agent {agent_id} began in an earlier process and was not spawned again yet; spawn it "
            "with the same key, and use the handle that this returns"
        )
    if type(agent_id) is int and 0 < agent_id <= last_id:
        return UsageError(
            f"agent {agent_id} has ended and is no longer kept; store its outcome when you get it, "
            "or increase keep_outcomes"
        )
    return UsageError(
        f"there is no agent {quoted(agent_id)} in this pool; the last one is {last_id}; agents are "
        "known by number: handle.agent_id"
    )

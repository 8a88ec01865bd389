"""A driver that fails as planned, in every way in which a request to a remote model can fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias, assert_never, final

import attrs
import trio

from agentpool._checks import Checked, expect_arguments
from agentpool._manifest.capability import PrivacyTier
from agentpool._messages import Completion, CompletionRequest, FinishReason, ToolCall, Usage
from agentpool.abc import Driver, OnDelta

OUT_OF_PLAN: Final = "done"
"""The driver's answer to every request after the end of its plan, so that each run can end."""


@final
@attrs.frozen
class Answer(Checked):
    """The model answers immediately."""

    completion: Completion
    """The answer."""


@final
@attrs.frozen
class Fail(Checked):
    """The request fails."""

    error: Exception
    """What it fails with."""
    after_pieces: tuple[str, ...] = ()
    """The text that arrives before the failure. A request with such text is not retried."""


@final
@attrs.frozen
class Stall(Checked):
    """The model answers after a delay."""

    seconds: float
    """How long it takes."""
    completion: Completion
    """The answer."""


@final
@attrs.frozen
class Trickle(Checked):
    """The model writes slowly."""

    pieces: tuple[str, ...]
    """The pieces of its text."""
    seconds: float
    """How long each piece takes."""


@final
@attrs.frozen
class Truncate(Checked):
    """The answer is cut off at ``max_tokens``."""

    text: str
    """The part of the text that arrives."""


@final
@attrs.frozen
class CallWildly(Checked):
    """The model calls tools that do not exist, or with invalid arguments."""

    tool_calls: tuple[ToolCall, ...]
    """The calls."""


@final
@attrs.frozen
class Hang:
    """The model never answers."""


Fault: TypeAlias = Answer | Fail | Stall | Trickle | Truncate | CallWildly | Hang
"""What happens to one request."""


@final
class FaultyDriver(Driver):
    """Takes one fault of its plan for each request, then answers ``done``.

    >>> driver = FaultyDriver([Stall(60.0, Completion("late")), Hang()])
    """

    __slots__ = ("_left", "taken")

    def __init__(self, plan: Iterable[Fault]) -> None:
        """Make a driver with a *plan*, which may be endless.

        Args:
            plan: What happens to each request, in the order in which they come.
        """
        expect_arguments(FaultyDriver.__init__, locals())
        self._left: Iterator[Fault] = iter(plan)
        self.taken: int = 0
        """The number of faults used so far."""

    @property
    def context_window(self) -> int | None:
        """Always ``None``: unknown."""
        return None

    @property
    def privacy(self) -> PrivacyTier:
        """Sovereign: the driver sends nothing anywhere."""
        return PrivacyTier.SOVEREIGN

    def price(self, usage: Usage, *, model: str | None = None) -> float | None:  # noqa: ARG002  # it costs nothing
        """Return 0.0: requests are free."""
        return 0.0

    async def complete(
        self,
        request: CompletionRequest,  # noqa: ARG002  # it does not listen
        *,
        on_delta: OnDelta | None = None,
    ) -> Completion:
        """Fail or answer as the plan says.

        Raises:
            Exception: What the plan says to raise.

        Cancellation:
            The fault counts as used.
        """
        await trio.lowlevel.checkpoint()
        fault = next(self._left, None)
        if fault is None:
            return Completion(OUT_OF_PLAN)
        self.taken += 1
        return await _perform(fault, on_delta or _ignore)


async def _perform(fault: Fault, on_delta: OnDelta) -> Completion:  # noqa: ASYNC910  # complete() had a checkpoint
    match fault:
        case Answer(completion):
            return _heard(completion, on_delta)  # noqa: ASYNC910  # complete() had a checkpoint
        case Fail(error, pieces):
            for piece in pieces:
                on_delta(piece)
            raise error
        case Stall(seconds, completion):
            await trio.sleep(seconds)
            return _heard(completion, on_delta)
        case Trickle(pieces, seconds):
            for piece in pieces:
                await trio.sleep(seconds)
                on_delta(piece)
            return Completion("".join(pieces))  # noqa: ASYNC910  # complete() had a checkpoint
        case Truncate(text):
            return _heard(Completion(text, finish_reason=FinishReason.MAX_TOKENS), on_delta)  # noqa: ASYNC910  # complete() had a checkpoint
        case CallWildly(tool_calls):
            reason = FinishReason.TOOL_USE if tool_calls else FinishReason.END_TURN
            return Completion(tool_calls=tool_calls, finish_reason=reason)  # noqa: ASYNC910  # complete() had a checkpoint
        case Hang():
            await trio.sleep_forever()
            # Never reached, whatever linters think.
            raise AssertionError  # pragma: no cover
        case _:
            assert_never(fault)


def _heard(completion: Completion, on_delta: OnDelta) -> Completion:
    if completion.text:
        on_delta(completion.text)
    return completion


def _ignore(_: str) -> None:
    """Ignore a piece of text."""

"""Compares what a resumed run does with what its journal recorded.

Rule: a caller can never accept the recorded result of a different kind of effect. That result would
be misread, and all later results would be at the wrong places.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agentpool._errors import ResumeMismatchError
from agentpool._journal_records import JournalRecord, RecordKind, begins_call, read_body
from agentpool._loop.run import Complete, Effect, Recall, Remember, Summarize
from agentpool._messages import AgentId, ToolCall
from agentpool._recorded_results import Called

_HAD: Final = "it has a memory now and had none before, or the reverse,"
_GONE: Final = "which it no longer has or may not call,"


def calls_of(records: Iterable[JournalRecord]) -> dict[int, JournalRecord]:
    """Return the newest record of each tool call, by the place of the call."""
    kinds = {RecordKind.RESULT, RecordKind.STARTED}
    # The result of a request has no digest.
    return {
        one.place: one
        for one in records
        if one.kind in kinds and one.digest and (one.kind is RecordKind.RESULT or begins_call(one))
    }


def other_thing(
    effect: Effect,
    called: JournalRecord | None,
    begun: JournalRecord | None,
    ended: JournalRecord | None,
    *,
    is_last: bool,
) -> str | None:
    """Return how *effect* differs from the recorded one. ``None``: it does not differ.

    Args:
        effect: The effect that comes next. It is not one of tool calls.
        called: The record of a tool call at the place of the effect.
        begun: The record that something began there.
        ended: The record of its result.
        is_last: Whether no later place has a record.
    """
    if called is not None:
        has_ended = called.kind is RecordKind.RESULT
        name = f" {read_body(called.body, Called).result.name!r}" if has_ended else ""
        end = "" if has_ended else " and may have run"
        return f"tool{name} was called{end}, {_GONE}"
    if isinstance(effect, Complete | Summarize):
        # A summary may have a result and no request.
        is_asked = ended is not None or begun is not None
        is_other = not (is_asked or is_last) or (
            ended is not None and begun is None and isinstance(effect, Complete)
        )
    else:
        is_recall = isinstance(effect, Recall)  # what it found is a list
        is_other = begun is not None or (
            ended.body.startswith(b"[") != is_recall
            if ended is not None
            else isinstance(effect, Recall | Remember) and not is_last
        )
    return _HAD if is_other else None


def other_call(
    call: ToolCall,
    begun: JournalRecord | None,
    ended: JournalRecord | None,
    *,
    is_refused: bool,
    is_last: bool,
) -> str | None:
    """Return how *call* differs from the recorded one. ``None``: it does not differ.

    Args:
        call: The call of the model.
        begun: The record that something began there.
        ended: The record of its result.
        is_refused: Whether it may not be made now.
        is_last: Whether no later place has a record.
    """
    if is_refused:
        was_made = begun is not None if ended is None else bool(ended.digest)
        end = " and may have run" if ended is None else ""
        return f"tool {call.name!r} was called{end}, {_GONE}" if was_made else None
    is_other = not is_last if ended is None else not ended.digest
    return f"tool {call.name!r} is called now and was not run then," if is_other else None


def early_end(place: int, last_place: int, called: Iterable[int]) -> str | None:
    """Return what a run that ends at *place* leaves out of its records. ``None``: nothing.

    A lower limit may end it earlier now. What came after *place* was done, but would be reported as
    "not run", or not at all.

    Args:
        place: The place of the last thing that it asked for.
        last_place: The last place with a record.
        called: The places at which tools were called.
    """
    if place >= last_place:
        return None
    later = [one for one in called if one > place]
    was = f"a tool was called at place {min(later)}" if later else "it went on"
    return f"{was}, and it ends now"


def mismatch(agent_id: AgentId, place: int, differs: str, more: str = "") -> ResumeMismatchError:
    """Return the error for a run that cannot be resumed.

    Args:
        agent_id: The agent of the run.
        place: The place in that run.
        differs: What differs, in words.
        more: What else helps, in words.
    """
    return ResumeMismatchError(
        f"agent {agent_id} cannot be resumed: {differs} at place {place} of its run; undo the "
        f"change, or resume with resume='branch'{more}",
        agent_id=agent_id, place=place, differs=differs,
    )  # fmt: skip

"""Whether what a resumed run does is what its journal has the result of.

Rule: the result of another thing is nothing that a caller could accept. It would be read as
what it is not, and all that follows would stand at another place.
"""

from __future__ import annotations

from agentpool._agent.results import Called
from agentpool._loop.run import Complete, Effect, Recall, Remember, Summarize
from agentpool._records import JournalRecord, read_body


def other_thing(
    effect: Effect, begun: JournalRecord | None, ended: JournalRecord | None, *, is_last: bool
) -> str | None:
    """Return how *effect* is another thing than what was done at its place. ``None``: it is not.

    Args:
        effect: What is to be done: no tool calls.
        begun: The record that something began there.
        ended: The record of its result.
        is_last: Whether nothing is known of later places.
    """
    if ended is not None and ended.digest:
        name = read_body(ended.body, Called).result.name
        return f"tool {name!r} was called, which it has no more or may not call,"
    if isinstance(effect, Complete | Summarize):
        # A summary may have a result and no request.
        is_other = ended is not None and begun is None and isinstance(effect, Complete)
    else:
        is_recall = isinstance(effect, Recall)  # what it found is a list
        is_other = begun is not None or (
            ended.body.startswith(b"[") != is_recall
            if ended is not None
            else isinstance(effect, Recall | Remember) and not is_last
        )
    return "it has a memory now and had none, or the reverse," if is_other else None

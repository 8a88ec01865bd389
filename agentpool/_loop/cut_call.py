"""Tool calls that were cut off, in their name or arguments, at the limit of the answer.

If such a call ran, the tool could only say that the arguments are not JSON, and the model would
write just as much again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from agentpool._loop.run import RunTools, refused
from agentpool._messages import ToolDefinition

CUT_CALL: Final = (
    "not run: the answer was cut off at its limit in the middle of this call, so its arguments "
    "are incomplete; call again with shorter arguments, or do it in several steps"
)
"""The result of such a call, for the model."""

CUT_IN_CALL: Final = "within a tool call; increase model.max_tokens"
"""Where the last of too many answers was cut, for the error."""


def refuse_cut(batch: RunTools, tools: Sequence[ToolDefinition]) -> bool:
    """Refuse the calls of *batch* that were cut off, and tell the model why.

    Args:
        batch: The calls of the answer that was cut.
        tools: The tools that the model is shown. A name that is not among them may have been cut
            too.

    Returns:
        Whether there was such a call.
    """
    known = {tool.name for tool in tools}
    was_cut = False
    for index, call in enumerate(batch.calls):
        if not _is_json(call.arguments):
            was_cut = True
            if batch.results[index] is None or call.name not in known:
                batch.results[index] = refused(call, CUT_CALL)
    return was_cut


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True

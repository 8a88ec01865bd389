"""Tool calls whose arguments were cut off by the limit of the answer.

The tool could only say that they are not JSON, and the model would write as much again.
"""

from __future__ import annotations

from typing import Final

import msgspec

from agentpool._loop.run import RunTools, refused

CUT_CALL: Final = (
    "not run: the answer was cut off at its limit in the middle of this call, so its arguments "
    "are incomplete; call again with shorter arguments, or do it in several steps"
)
"""What the model is told of such a call."""


def refuse_cut(batch: RunTools) -> None:
    """Refuse the calls of *batch* whose arguments were cut off, and tell the model why."""
    for index, call in enumerate(batch.calls):
        if batch.results[index] is None and not _is_json(call.arguments):
            batch.results[index] = refused(call, CUT_CALL)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True

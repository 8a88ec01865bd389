"""Packs values and errors that travel between the program and a node, many at a time.

Rules:

1. A batch is pickled as a whole, so that parts that many items share are sent once.
2. An item that cannot be pickled fails alone; the rest of its batch is sent.
3. An error is sent as itself only if unpickling gives the same type and text. Any other error is
   sent as a `RemoteError`.
4. A node's API keys are removed from errors before they are sent: the program may not know these
   keys.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

from agentpool._errors import AgentPoolError, traceback_text
from agentpool.cluster._errors import RemoteError

T = TypeVar("T")

SURVIVES = "builtins"
"""The module whose errors may be sent as themselves, as our own errors may."""


def pack(items: Sequence[T], in_place_of: Callable[[T, Exception], T]) -> bytes:
    """Return *items* as bytes.

    Args:
        items: What to send.
        in_place_of: Called with an item that cannot be pickled, and with the error. It returns what
            is sent instead.
    """
    try:
        return pickle.dumps(list(items), protocol=5)
    except Exception:  # noqa: BLE001  # foreign values raise anything; found out one by one
        return pickle.dumps([_sound(item, in_place_of) for item in items], protocol=5)


def _sound(item: T, in_place_of: Callable[[T, Exception], T]) -> T:
    try:
        pickle.dumps(item, protocol=5)
    except Exception as error:  # noqa: BLE001  # the same
        return in_place_of(item, error)
    return item


def unpack(data: bytes) -> list[object]:
    """Return the items of a batch.

    Unpickling is safe here: the other side is part of the same program, and an attacker who could
    change it could run code there anyway.
    """
    return cast("list[object]", pickle.loads(data))  # noqa: S301  # see above


def portable(
    error: BaseException, node: str, hide: Callable[[str], str] = lambda text: text
) -> Exception:
    """Return *error*, or a substitute that can be sent. A note says where it was raised.

    Args:
        error: What was raised.
        node: The node's name.
        hide: Removes the node's API keys from a text.
    """
    trace = hide(traceback_text(error))
    where = f"raised on node {node}:\n{trace}"
    if isinstance(error, Exception) and _survives(error):
        back = cast("Exception", pickle.loads(pickle.dumps(error)))  # noqa: S301  # our own bytes
        if hide(text := str(back)) != text:
            back.args = tuple(hide(one) if isinstance(one, str) else one for one in back.args)
        if hide(text := str(back)) == text:
            back.add_note(where)
            return back
    name = type(error).__name__
    remote = RemoteError(hide(f"{name}: {_text(error)}"), type_name=name, traceback=trace)
    remote.add_note(where)
    return remote


def _survives(error: Exception) -> bool:
    if not (isinstance(error, AgentPoolError) or type(error).__module__ == SURVIVES):
        return False
    try:
        back: object = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    except Exception:  # noqa: BLE001  # then it crosses as data
        return False
    return type(back) is type(error) and str(back) == str(error)


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # an error that cannot be printed is still an error
        return "(it cannot be printed)"
